//! Receipts kept outside: the files they come in, and holding them against what is checked.

use std::collections::HashMap;

use crate::ids::{EventHash, Seq, SessionId, TenantId};
use crate::json::{JsonError, Kind, Reader};
use crate::statement::{Says, Standing};

use super::keys::Keys;
use super::{Bad, Code};

/// Longest file of receipts, bytes: some ten thousand receipts.
pub(super) const FILE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// A receipt as it was given; whether it is genuine is seen once the keys are known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GivenReceipt {
    note: String,
    /// What it says, unless it is malformed.
    standing: Option<Standing>,
    /// What is wrong with it already. That counts only after what is checked is found right.
    problem: Option<String>,
}

impl GivenReceipt {
    /// From the bare note.
    pub fn from_note(note: &str) -> Self {
        // The text of a note ends at its last empty line; the signatures are looked at later.
        let text = note.rfind("\n\n").map(|at| &note[..=at]);
        match text
            .ok_or("not a signed note".to_owned())
            .and_then(|text| Standing::parse(Says::Receipt, text).map_err(|e| e.to_string()))
        {
            Ok(standing) => Self { note: note.to_owned(), standing: Some(standing), problem: None },
            Err(why) => Self::bad(why),
        }
    }

    fn bad(why: impl Into<String>) -> Self {
        Self { note: String::new(), standing: None, problem: Some(why.into()) }
    }

    /// The note itself.
    pub(super) fn note(&self) -> &str {
        &self.note
    }

    /// What is wrong with it already.
    pub(super) fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    /// What it says, if it can be read.
    pub fn standing(&self) -> Option<&Standing> {
        self.standing.as_ref()
    }
}

/// Reads a file of receipts: the saved reply to an append (its member `receipts`), a list, one object, or a bare note.
/// A file that is none of these gives one receipt that is found bad.
pub fn read_receipts(data: &[u8]) -> Vec<GivenReceipt> {
    if data.len() > FILE_BYTES_MAX {
        return vec![GivenReceipt::bad(format!("a file of receipts longer than {FILE_BYTES_MAX} bytes"))];
    }
    let Ok(text) = std::str::from_utf8(data) else {
        return vec![GivenReceipt::bad("a file of receipts that is not UTF-8")];
    };
    if !text.trim_start_matches([' ', '\t', '\r', '\n']).starts_with(['{', '[']) {
        return vec![GivenReceipt::from_note(text)];
    }
    match read_json(text) {
        Ok(receipts) if receipts.is_empty() => vec![GivenReceipt::bad("a file that holds no receipt")],
        Ok(receipts) => receipts,
        Err(why) => vec![GivenReceipt::bad(format!("not a file of receipts: {why}"))],
    }
}

fn read_json(text: &str) -> Result<Vec<GivenReceipt>, JsonError> {
    // The whole document first: what is wrong with it is wrong with the file, not with one receipt.
    let mut reader = Reader::new(text);
    let mut is_reply = false;
    if reader.kind()? == Kind::Object {
        reader.object(|r, name| {
            is_reply |= name == "receipts";
            r.skip()
        })?;
    } else {
        reader.skip()?;
    }
    reader.end()?;
    let mut receipts = Vec::new();
    let mut reader = Reader::new(text);
    if is_reply {
        reader.object(|r, name| if name == "receipts" { read_list(r, &mut receipts) } else { r.skip() })?;
    } else if reader.kind()? == Kind::Array {
        read_list(&mut reader, &mut receipts)?;
    } else {
        receipts.push(read_object(&mut reader)?);
    }
    Ok(receipts)
}

fn read_list(r: &mut Reader<'_>, receipts: &mut Vec<GivenReceipt>) -> Result<(), JsonError> {
    r.array(|r, _| {
        receipts.push(read_object(r)?);
        Ok(())
    })
}

/// The members of a receipt object that stand beside its note.
#[derive(Default)]
struct Claims {
    note: Option<String>,
    session_id: Option<String>,
    hash: Option<String>,
    time: Option<String>,
    sequence: Option<u64>,
    /// Members that are read so far, and whether there was any other.
    count: usize,
    other: bool,
}

fn read_object(r: &mut Reader<'_>) -> Result<GivenReceipt, JsonError> {
    if r.kind()? != Kind::Object {
        r.skip()?;
        return Ok(GivenReceipt::bad("not a receipt object"));
    }
    let mut claims = Claims::default();
    r.object(|r, name| {
        let slot = match name {
            "note" => &mut claims.note,
            "session_id" => &mut claims.session_id,
            "hash" => &mut claims.hash,
            "time" => &mut claims.time,
            "sequence" => {
                claims.count += 1;
                // A number that is no sequence agrees with no note; the document was read before and goes on after it.
                if r.kind()? == Kind::Number {
                    claims.sequence = r.unsigned().ok();
                    return Ok(());
                }
                return r.skip();
            }
            _ => {
                claims.other = true;
                return r.skip();
            }
        };
        claims.count += 1;
        if r.kind()? == Kind::String {
            *slot = Some(r.string()?.into_owned());
            return Ok(());
        }
        r.skip()
    })?;
    Ok(claims.receipt())
}

impl Claims {
    fn receipt(self) -> GivenReceipt {
        let Some(note) = self.note.filter(|_| self.count == 5 && !self.other) else {
            return GivenReceipt::bad(
                "expected a receipt: session_id, sequence, hash, time and note, no more",
            );
        };
        let mut receipt = GivenReceipt::from_note(&note);
        if let Some(said) = &receipt.standing {
            let agrees = self.session_id.as_deref() == Some(said.session_id.as_str())
                && self.sequence.and_then(Seq::new) == Some(said.sequence)
                && self.hash == Some(said.hash.to_string())
                && self.time == Some(said.time.to_string());
            if !agrees {
                receipt.problem =
                    Some("what stands beside the receipt's note does not agree with it".to_owned());
            }
        }
        receipt
    }
}

/// Which events the receipts speak of, and their hashes once they were seen.
#[derive(Debug, Default)]
pub(super) struct Wanted(HashMap<(TenantId, SessionId), HashMap<u64, Option<EventHash>>>);

impl Wanted {
    /// Of these receipts.
    pub(super) fn new(receipts: &[GivenReceipt]) -> Self {
        let mut wanted = HashMap::<_, HashMap<_, _>>::new();
        for said in receipts.iter().filter_map(GivenReceipt::standing) {
            let session = (said.tenant.clone(), said.session_id.clone());
            wanted.entry(session).or_default().insert(said.sequence.get(), None);
        }
        Self(wanted)
    }

    /// The events of a session that are spoken of; `None` if none is.
    pub(super) fn of(
        &mut self,
        tenant: &TenantId,
        session: &SessionId,
    ) -> Option<&mut HashMap<u64, Option<EventHash>>> {
        if self.0.is_empty() {
            return None;
        }
        self.0.get_mut(&(tenant.clone(), session.clone()))
    }

    /// As [`Wanted::of`], to look at.
    pub(super) fn get(
        &self,
        tenant: &TenantId,
        session: &SessionId,
    ) -> Option<&HashMap<u64, Option<EventHash>>> {
        if self.0.is_empty() {
            return None;
        }
        self.0.get(&(tenant.clone(), session.clone()))
    }

    /// The hash that was seen where a receipt says.
    pub(super) fn found(&self, said: &Standing) -> Option<EventHash> {
        let events = self.0.get(&(said.tenant.clone(), said.session_id.clone()))?;
        *events.get(&said.sequence.get())?
    }
}

/// What a receipt that fails is about.
pub(super) struct BadReceipt {
    pub(super) bad: Bad,
    pub(super) standing: Option<Standing>,
}

/// Holds the receipts against what was seen. `is_covered` says whether a session was among it. Gives the first
/// receipt whose session was not.
///
/// # Errors
/// The first that is not genuine, or whose event is not there or is another.
pub(super) fn hold(
    receipts: &[GivenReceipt],
    keys: &Keys,
    wanted: &Wanted,
    is_covered: impl Fn(&Standing) -> bool,
) -> Result<Option<Standing>, Box<BadReceipt>> {
    let mut uncovered = None;
    for receipt in receipts {
        let fail = |message: String| {
            let standing = receipt.standing.clone();
            Box::new(BadReceipt { bad: Bad::new(Code::Receipt, message), standing })
        };
        if let Some(why) = &receipt.problem {
            return Err(fail(why.clone()));
        }
        let said = keys.open(Says::Receipt, &receipt.note).map_err(|e| fail(format!("the receipt: {e}")))?;
        if !is_covered(&said) {
            uncovered.get_or_insert(said);
            continue;
        }
        match wanted.found(&said) {
            Some(hash) if hash == said.hash => {}
            Some(hash) => return Err(fail(format!("the receipt promises hash {}, found {hash}", said.hash))),
            None => {
                return Err(fail(format!(
                    "the receipt promises an event with hash {}, none is there",
                    said.hash
                )));
            }
        }
    }
    Ok(uncovered)
}
