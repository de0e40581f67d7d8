//! Where batches are staged: `<tenant>/<batch number, 20 digits>-<32 hex digits>.parquet`, in a store of its own.

use crate::ids::TenantId;
use crate::{ids, random};

/// A name that nobody else has.
pub(super) fn fresh(tenant: &TenantId, batch: u64) -> String {
    format!("{}{batch:020}-{}.parquet", of(tenant), ids::hex(&random::bytes::<16>()))
}

/// What all names of a tenant begin with.
pub(super) fn of(tenant: &TenantId) -> String {
    format!("{tenant}/")
}

/// The batch that something was staged for.
pub(super) fn batch(tenant: &TenantId, key: &str) -> Option<u64> {
    let digits = key.strip_prefix(&of(tenant))?.get(..20)?;
    digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_staged_object_says_for_which_batch() {
        let tenant = TenantId::parse("acme").unwrap();
        let key = fresh(&tenant, 7);
        assert!(key.starts_with("acme/00000000000000000007-") && key.ends_with(".parquet"), "{key}");
        assert_ne!(key, fresh(&tenant, 7));
        assert_eq!(batch(&tenant, &key), Some(7));
        for other in ["acme/7-a", "other/00000000000000000007-a", "acme/0000000000000000000é"] {
            assert_eq!(batch(&tenant, other), None);
        }
    }
}
