//! Parameters of a URL's query.

use std::str::FromStr;

use axum::extract::Query;
use axum::http::Uri;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;

use super::ApiError;
use crate::ids::{CommitId, IdError, SessionId, Severity};
use crate::limits;
use crate::store::FeedPosition;
use crate::summary::Status;
use crate::time::Micros;

/// The query of a URL, taken out one parameter at a time.
#[derive(Debug)]
pub struct Params(Vec<(String, String)>);

impl Params {
    /// Reads them.
    ///
    /// # Errors
    /// If the query is not well formed.
    pub fn read(uri: &Uri) -> Result<Self, ApiError> {
        let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(uri)
            .map_err(|_| ApiError::parameter("query", "not a well-formed query string"))?;
        Ok(Self(pairs))
    }

    /// Takes a text; empty counts as absent.
    ///
    /// # Errors
    /// If it is given twice.
    pub fn text(&mut self, name: &str) -> Result<Option<String>, ApiError> {
        let mut found = None;
        while let Some(at) = self.0.iter().position(|(n, _)| n == name) {
            let (_, value) = self.0.swap_remove(at);
            if found.replace(value).is_some() {
                return Err(ApiError::parameter(name, "given twice"));
            }
        }
        Ok(found.filter(|value| !value.is_empty()))
    }

    /// Takes a value that parses itself.
    ///
    /// # Errors
    /// If it does not fit.
    pub fn parsed<T>(
        &mut self,
        name: &str,
        parse: impl FnOnce(String) -> Result<T, IdError>,
    ) -> Result<Option<T>, ApiError> {
        self.text(name)?.map(|text| parse(text).map_err(|why| ApiError::parameter(name, why))).transpose()
    }

    /// Takes a number.
    ///
    /// # Errors
    /// If it is none.
    pub fn number<T: FromStr>(&mut self, name: &str) -> Result<Option<T>, ApiError> {
        let parse = |text: String| {
            text.parse().map_err(|_| ApiError::parameter(name, "must be a whole number from 0"))
        };
        self.text(name)?.map(parse).transpose()
    }

    /// Takes a page size from 1 to `most`.
    ///
    /// # Errors
    /// If it is out of range.
    pub fn limit(&mut self, default: usize, most: usize) -> Result<usize, ApiError> {
        match self.number::<usize>("limit")? {
            None => Ok(default),
            Some(limit) if (1..=most).contains(&limit) => Ok(limit),
            Some(_) => Err(ApiError::parameter("limit", format!("must be from 1 to {most}"))),
        }
    }

    /// Takes a list joined by commas.
    ///
    /// # Errors
    /// If it is given twice.
    pub fn list(&mut self, name: &str) -> Result<Vec<String>, ApiError> {
        let text = self.text(name)?.unwrap_or_default();
        Ok(text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect())
    }

    /// Takes severities joined by commas.
    ///
    /// # Errors
    /// If one is none.
    pub fn severities(&mut self, name: &str) -> Result<Vec<Severity>, ApiError> {
        let parse = |word: &String| Severity::parse(word).map_err(|why| ApiError::parameter(name, why));
        self.list(name)?.iter().map(parse).collect()
    }

    /// Takes session statuses joined by commas.
    ///
    /// # Errors
    /// If one is none.
    pub fn statuses(&mut self, name: &str) -> Result<Vec<Status>, ApiError> {
        let parse = |word: &String| {
            Status::parse(word).ok_or_else(|| ApiError::parameter(name, "must be active, completed or error"))
        };
        self.list(name)?.iter().map(parse).collect()
    }

    /// Takes a place in the list of sessions.
    ///
    /// # Errors
    /// If it is none that [`Params::encode_session_cursor`] made.
    pub fn session_cursor(&mut self, name: &str) -> Result<Option<FeedPosition>, ApiError> {
        let decode = |text: &str| {
            let bytes = BASE64URL.decode(text).ok()?;
            let (commit, session) = bytes.split_first_chunk::<16>()?;
            let session_id = SessionId::parse(std::str::from_utf8(session).ok()?).ok()?;
            Some(FeedPosition { commit_id: CommitId::from_bytes(*commit)?, session_id })
        };
        let Some(text) = self.text(name)? else { return Ok(None) };
        decode(&text).map(Some).ok_or_else(|| ApiError::parameter(name, "not a cursor of this list"))
    }

    /// A place in the list of sessions as text.
    pub fn encode_session_cursor(position: &FeedPosition) -> String {
        let bytes = [&position.commit_id.to_bytes()[..], position.session_id.as_str().as_bytes()].concat();
        BASE64URL.encode(bytes)
    }

    /// Takes a time: RFC 3339, also with its `+` undone by a careless writer of URLs, or a day alone, which is its
    /// first moment in UTC (its last, with `end_of_day`).
    ///
    /// # Errors
    /// If it is none.
    pub fn time(&mut self, name: &str, end_of_day: bool) -> Result<Option<Micros>, ApiError> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        let text = match text.rsplit_once(' ') {
            Some((before, offset)) if offset.len() == 5 && before.len() > 10 => format!("{before}+{offset}"),
            _ if text.len() == 10 && end_of_day => format!("{text}T23:59:59.999999Z"),
            _ if text.len() == 10 => format!("{text}T00:00:00Z"),
            _ => text,
        };
        Micros::parse(&text).map(Some).map_err(|why| ApiError::parameter(name, why))
    }

    /// Takes the text to search for.
    ///
    /// # Errors
    /// If it is too long.
    pub fn search(&mut self) -> Result<Option<String>, ApiError> {
        let text = self.text("search")?;
        match &text {
            Some(t) if t.len() > limits::SEARCH_BYTES_MAX => {
                let why =
                    format!("is {} bytes long, search_bytes_max is {}", t.len(), limits::SEARCH_BYTES_MAX);
                Err(ApiError::parameter("search", why))
            }
            _ => Ok(text),
        }
    }

    /// Ends them.
    ///
    /// # Errors
    /// If one is left that nobody took: a typing error must not widen a query in silence.
    pub fn end(self) -> Result<(), ApiError> {
        match self.0.first() {
            None => Ok(()),
            Some((name, _)) => Err(ApiError::parameter(name, "unknown parameter")),
        }
    }
}
