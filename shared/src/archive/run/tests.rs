//! What can be seen without a store: that a run may move between threads.

use super::*;

/// A server's runtime and Lambda's both ask for it.
#[test]
fn a_run_may_move_between_threads() {
    fn moves<T: Send>(_: impl FnOnce(&'static Archiver, &'static TenantId) -> T) {}
    moves(|archiver, tenant| archiver.run(tenant, Close::Now, Micros::MAX));
}
