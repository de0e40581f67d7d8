//! Which batches an archive has, by the store's catalogue, and those of them that were read lately.
//!
//! A batch's record and its object stay as they are, so a process reads each once and asks the store only for batches
//! after those it knows. What changes them all the same (an erasure) shows: a range of another object is
//! [`ColdError::Corrupt`], and then whoever reads has the catalogue [`Catalogue::forget`] the tenant and reads again.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lru::LruCache;

use super::{ColdError, ColdFile, Cost};
use crate::ids::{CommitId, SessionId, TenantId};
use crate::ledger::EventFilter;
use crate::limits;
use crate::log::LogError;
use crate::log::LogReader;
use crate::log::bloom::Bloom;
use crate::log::header::{BatchHeader, hash_of};
use crate::objects::{ObjectError, ObjectStore};
use crate::store::{BatchRecord, Store, StoreError};

/// Records in one page of the store's.
const PAGE_RECORDS: usize = 500;

/// A batch, as the catalogue knows it.
#[derive(Debug)]
pub struct Batch {
    /// Its record. Its bloom filters are not in there any more.
    pub record: BatchRecord,
    /// Over sessions, agents and types. What is no filter rules nothing out.
    blooms: [Option<Bloom>; 3],
}

impl Batch {
    fn new(mut record: BatchRecord) -> Self {
        let blooms = std::mem::take(&mut record.blooms).map(Bloom::from_bytes);
        Self { record, blooms }
    }

    /// False if the batch has surely nothing that the filter asks for.
    pub fn may_match(&self, filter: &EventFilter) -> bool {
        let (low, high) = self.record.times;
        filter.from.is_none_or(|from| high >= from)
            && filter.to.is_none_or(|to| low <= to)
            && filter.session.as_ref().is_none_or(|session| self.may_hold_session(session))
            && self.may_hold_one(1, &filter.agents)
            && self.may_hold_one(2, &filter.event_types)
    }

    /// How many of its events are asked for, if the record can say.
    pub fn exact_count(&self, filter: &EventFilter) -> Option<u64> {
        if !self.may_match(filter) {
            return Some(0);
        }
        let (low, high) = self.record.times;
        let whole = filter.covers(low, high) && filter.asks_for_all_of_a_time();
        whole.then_some(self.record.count)
    }

    /// False if the batch has surely no event of the session.
    pub fn may_hold_session(&self, session: &SessionId) -> bool {
        self.may_hold(0, session.as_str())
    }

    /// False if the batch has surely no event of the commit.
    pub fn may_hold_commit(&self, commit: CommitId) -> bool {
        (self.record.commits.0..=self.record.commits.1).contains(&commit)
    }

    fn may_hold(&self, bloom: usize, value: &str) -> bool {
        self.blooms[bloom].as_ref().is_none_or(|bloom| bloom.contains(value))
    }

    fn may_hold_one(&self, bloom: usize, values: &[String]) -> bool {
        values.is_empty() || values.iter().any(|value| self.may_hold(bloom, value))
    }

    /// About how many bytes it takes in memory.
    fn weight(&self) -> usize {
        let blooms: usize = self.blooms.iter().flatten().map(|bloom| bloom.as_bytes().len()).sum();
        size_of::<Self>() + self.record.key.len() + blooms
    }
}

/// Batches of a tenant, in the order of their numbers.
pub type Batches = Arc<[Arc<Batch>]>;

/// The batches of a ledger's archive.
pub struct Catalogue {
    objects: Option<Arc<dyn ObjectStore>>,
    kept: Mutex<Kept>,
}

struct Kept {
    /// Of each tenant the batches from 1 on, as far as none is missing, and what they weigh.
    batches: LruCache<TenantId, (Batches, usize)>,
    batches_bytes: usize,
    files: LruCache<(TenantId, u64), Arc<ColdFile>>,
    files_bytes: usize,
}

impl std::fmt::Debug for Catalogue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Catalogue").finish_non_exhaustive()
    }
}

impl Catalogue {
    /// Of an archive; without one, the catalogue can be read, and no batch of it.
    pub fn new(objects: Option<Arc<dyn ObjectStore>>) -> Self {
        let kept = Kept {
            batches: LruCache::unbounded(),
            batches_bytes: 0,
            files: LruCache::unbounded(),
            files_bytes: 0,
        };
        Self { objects, kept: Mutex::new(kept) }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All batches of a tenant, strongly consistent.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn batches(&self, store: &dyn Store, tenant: &TenantId) -> Result<Batches, StoreError> {
        let known: Batches = match self.kept().batches.get(tenant) {
            Some((batches, _)) => batches.clone(),
            None => Arc::new([]),
        };
        let mut after = known.last().map_or(0, |last| last.record.batch);
        let mut found = Vec::new();
        loop {
            let page = store.batches(tenant, after, PAGE_RECORDS).await?;
            let last = page.last().filter(|_| page.len() >= PAGE_RECORDS).map(|record| record.batch);
            found.extend(page.into_iter().map(|record| Arc::new(Batch::new(record))));
            let Some(last) = last else { break };
            after = last;
        }
        if found.is_empty() {
            return Ok(known);
        }
        let all: Batches = known.iter().cloned().chain(found).collect();
        // A store that is being rebuilt has them in no order.
        let whole = all.iter().zip(1..).take_while(|(batch, number)| batch.record.batch == *number).count();
        self.kept().keep_batches(tenant, if whole == all.len() { all.clone() } else { all[..whole].into() });
        Ok(all)
    }

    /// A batch, opened.
    ///
    /// # Errors
    /// See [`ColdFile::open`].
    pub async fn open(
        &self,
        tenant: &TenantId,
        batch: &Batch,
        cost: &mut Cost<'_>,
    ) -> Result<Arc<ColdFile>, ColdError> {
        let place = (tenant.clone(), batch.record.batch);
        if let Some(file) = self.kept().files.get(&place) {
            return Ok(file.clone());
        }
        let (objects, BatchRecord { key, bytes, .. }) = (self.objects()?, &batch.record);
        let file = match ColdFile::open(objects.clone(), tenant, key, *bytes, cost).await {
            Err(error @ ColdError::Corrupt { .. }) => {
                // The catalogue is the last to learn that an object was written anew.
                let length = objects.size(key).await?;
                if length == *bytes {
                    return Err(error);
                }
                ColdFile::open(objects, tenant, key, length, cost).await?
            }
            opened => opened?,
        };
        self.kept().keep_file(place, Arc::new(file.place_only()));
        Ok(Arc::new(file))
    }

    /// The header of a batch.
    ///
    /// # Errors
    /// `Corrupt` if it is not the one that the catalogue names; `Object`.
    pub async fn header(&self, tenant: &TenantId, batch: &Batch) -> Result<BatchHeader, ColdError> {
        let record = &batch.record;
        let corrupt =
            |why: String| ColdError::Corrupt { key: format!("header of batch {}", record.batch), why };
        let log = LogReader::new(self.objects()?, tenant.clone());
        let bytes = match log.header(record.batch).await {
            Ok(bytes) => bytes.ok_or_else(|| corrupt("it is gone".into()))?,
            Err(LogError::Object(error)) => return Err(error.into()),
            Err(other) => return Err(corrupt(other.to_string())),
        };
        if hash_of(&bytes) != record.header_hash {
            return Err(corrupt("it is not the one that the catalogue names".into()));
        }
        BatchHeader::parse(&bytes).map_err(|error| corrupt(error.to_string()))
    }

    /// Forgets what was read of a tenant.
    pub fn forget(&self, tenant: &TenantId) {
        let mut kept = self.kept();
        if let Some((_, weight)) = kept.batches.pop(tenant) {
            kept.batches_bytes -= weight;
        }
        let of_it: Vec<_> =
            kept.files.iter().map(|(place, _)| place).filter(|(of, _)| of == tenant).cloned().collect();
        for place in of_it {
            kept.drop_file(&place);
        }
    }

    fn objects(&self) -> Result<Arc<dyn ObjectStore>, ObjectError> {
        let why = || "this process was not told where the archive is".to_owned();
        self.objects.clone().ok_or_else(|| ObjectError::Unavailable { why: why() })
    }
}

impl Kept {
    fn keep_batches(&mut self, tenant: &TenantId, batches: Batches) {
        let weight = batches.iter().map(|batch| batch.weight()).sum();
        if let Some((_, before)) = self.batches.put(tenant.clone(), (batches, weight)) {
            self.batches_bytes -= before;
        }
        self.batches_bytes += weight;
        // The newest stays, whatever it weighs: to read it again for each query would cost more than it takes.
        while self.batches_bytes > limits::COLD_CATALOGUE_BYTES_MAX && self.batches.len() > 1 {
            let Some((_, (_, weight))) = self.batches.pop_lru() else { break };
            self.batches_bytes -= weight;
        }
    }

    fn keep_file(&mut self, place: (TenantId, u64), file: Arc<ColdFile>) {
        self.drop_file(&place);
        self.files_bytes += file.weight();
        self.files.put(place, file);
        while self.files_bytes > limits::COLD_FILES_BYTES_MAX {
            let Some((_, file)) = self.files.pop_lru() else { break };
            self.files_bytes -= file.weight();
        }
    }

    fn drop_file(&mut self, place: &(TenantId, u64)) {
        if let Some(file) = self.files.pop(place) {
            self.files_bytes -= file.weight();
        }
    }
}
