//! Reading an archive's objects: bounded, and with what could not be read told apart from what is not there.

use bytes::Bytes;

use crate::ids::TenantId;
use crate::objects::{Listed, ObjectError, ObjectStore};
use crate::verify::{Bad, Code, Finding};

/// Keys in a page of a list.
const PAGE: usize = 1000;

/// Why a check ends early: something is wrong, or cannot be read.
#[derive(Debug)]
pub(in crate::verify) struct Stop(pub(in crate::verify) Box<Finding>);

impl Stop {
    pub(super) fn bad(bad: Bad) -> Self {
        Self(Box::new(Finding::new(bad.code, bad.message)))
    }

    /// In a tenant's log.
    pub(super) fn of(mut self, tenant: &TenantId) -> Self {
        self.0.tenant.get_or_insert_with(|| tenant.clone());
        self
    }

    /// In a batch.
    pub(super) fn at(mut self, batch: u64) -> Self {
        self.0.batch.get_or_insert(batch);
        self
    }

    pub(super) fn unreadable(why: impl ToString) -> Self {
        Self(Box::new(Finding::new(Code::Unreadable, why.to_string())))
    }
}

impl From<ObjectError> for Stop {
    fn from(error: ObjectError) -> Self {
        Self::unreadable(error)
    }
}

/// An object that is not longer than `most` bytes; of a longer one, one byte more. `None` if it is not there.
pub(super) async fn bounded(
    objects: &dyn ObjectStore,
    key: &str,
    most: usize,
) -> Result<Option<Bytes>, Stop> {
    match objects.get_range(key, 0..most as u64 + 1).await {
        Ok(bytes) => Ok(Some(bytes)),
        Err(ObjectError::NotFound { .. }) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// As [`bounded`], of text. One that is longer or no UTF-8 is given as nothing that anybody could have signed.
pub(super) async fn text(objects: &dyn ObjectStore, key: &str, most: usize) -> Result<Option<String>, Stop> {
    let bytes = bounded(objects, key, most).await?;
    Ok(bytes.map(|bytes| String::from_utf8(bytes.into()).unwrap_or_default()))
}

/// The objects under a prefix, in the order of their keys.
pub(super) struct List<'o> {
    objects: &'o dyn ObjectStore,
    prefix: String,
    page: std::vec::IntoIter<Listed>,
    after: Option<String>,
    ended: bool,
}

impl<'o> List<'o> {
    pub(super) fn new(objects: &'o dyn ObjectStore, prefix: String) -> Self {
        Self { objects, prefix, page: Vec::new().into_iter(), after: None, ended: false }
    }

    /// Goes on after this key.
    pub(super) fn skip_to(&mut self, after: String) {
        self.page = Vec::new().into_iter();
        self.after = Some(after);
        self.ended = false;
    }

    pub(super) async fn next(&mut self) -> Result<Option<Listed>, Stop> {
        if let Some(listed) = self.page.next() {
            return Ok(Some(listed));
        }
        if self.ended {
            return Ok(None);
        }
        let page = self.objects.list(&self.prefix, self.after.as_deref(), PAGE).await?;
        self.ended = page.len() < PAGE;
        self.after = page.last().map(|listed| listed.key.clone()).or(self.after.take());
        self.page = page.into_iter();
        Ok(self.page.next())
    }
}
