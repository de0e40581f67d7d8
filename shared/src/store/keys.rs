//! Every persisted key, its layout, and why. No other file builds one.
//!
//! Embedded store: parts joined by a zero byte (which no id can hold), numbers big-endian so that they sort.
//! Signed times are moved by 2^63 for the same reason. Bodies have no key of their own: they lie in a log of numbered
//! parts, and the segment's row says where (`embedded/bodies.rs`).
//!
//! DynamoDB: [`dynamo`].

#[cfg(feature = "aws")]
pub mod dynamo;

use crate::ids::{AgentId, CommitId, EventId, Seq, SessionId, TenantId};
use crate::time::Micros;

/// Joins texts, each followed by a zero byte: a prefix of every key that goes on.
pub fn prefix(parts: &[&str]) -> Vec<u8> {
    let mut key = Vec::with_capacity(parts.iter().map(|p| p.len() + 1).sum::<usize>() + 24);
    for part in parts {
        key.extend_from_slice(part.as_bytes());
        key.push(0);
    }
    key
}

/// A segment: tenant, session, first sequence. Sorts by session, then sequence; "the last segment of a session" is
/// one step back from the end of its prefix.
pub fn segment(tenant: &TenantId, session: &SessionId, first: Seq) -> Vec<u8> {
    let mut key = prefix(&[tenant.as_str(), session.as_str()]);
    key.extend_from_slice(&first.get().to_be_bytes());
    key
}

/// The prefix of a session's segments, and the key of its record and of its pointer.
pub fn session(tenant: &TenantId, session: &SessionId) -> Vec<u8> {
    prefix(&[tenant.as_str(), session.as_str()])
}

/// The prefix of everything that is one tenant's.
pub fn tenant(tenant: &TenantId) -> Vec<u8> {
    prefix(&[tenant.as_str()])
}

/// A feed entry: tenant, commit, session. Sorts by commit, so that followers walk it and an event's id leads to it.
pub fn feed(tenant: &TenantId, commit: CommitId, session: &SessionId) -> Vec<u8> {
    let mut key = feed_commit(tenant, commit);
    key.extend_from_slice(session.as_str().as_bytes());
    key
}

/// The prefix of a commit's feed entries.
pub fn feed_commit(tenant: &TenantId, commit: CommitId) -> Vec<u8> {
    let mut key = prefix(&[tenant.as_str()]);
    key.extend_from_slice(&commit.to_bytes());
    key
}

/// A segment that is not archived yet: tenant, commit, session. The layout is the feed's.
pub fn open(tenant: &TenantId, commit: CommitId, session: &SessionId) -> Vec<u8> {
    feed(tenant, commit, session)
}

/// A batch of a tenant's log, by number.
pub fn batch(tenant: &TenantId, number: u64) -> Vec<u8> {
    let mut key = prefix(&[tenant.as_str()]);
    key.extend_from_slice(&number.to_be_bytes());
    key
}

/// When a segment expires: sorts by time, whosever it is, so that what has expired is found from the start.
pub fn segment_expiry(at: Micros, segment_key: &[u8]) -> Vec<u8> {
    let mut key = time(at).to_vec();
    key.extend_from_slice(segment_key);
    key
}

/// A session's place in the list of sessions: tenant, first commit, session. The layout is the feed's.
pub fn session_order(tenant: &TenantId, first_commit: CommitId, session: &SessionId) -> Vec<u8> {
    feed(tenant, first_commit, session)
}

/// A segment's place in the time index: tenant, span class, highest timestamp, commit, session. See
/// `embedded/time_index.rs` for what the class is good for.
pub fn time_index(
    tenant: &TenantId,
    class: u8,
    time_max: Micros,
    commit: CommitId,
    session: &SessionId,
) -> Vec<u8> {
    let mut key = time_index_class(tenant, class);
    key.extend_from_slice(&time(time_max));
    key.extend_from_slice(&commit.to_bytes());
    key.extend_from_slice(session.as_str().as_bytes());
    key
}

/// The prefix of a tenant's segments of one span class.
pub fn time_index_class(tenant: &TenantId, class: u8) -> Vec<u8> {
    let mut key = prefix(&[tenant.as_str()]);
    key.push(class);
    key
}

/// An agent's record, and the prefix of its sessions.
pub fn agent(tenant: &TenantId, agent: &AgentId) -> Vec<u8> {
    prefix(&[tenant.as_str(), agent.as_str()])
}

/// That a session holds an event of an agent: tenant, agent, the session's first commit, session. Sorts an agent's
/// sessions as the list of all sessions sorts.
pub fn agent_session(
    tenant: &TenantId,
    agent: &AgentId,
    first_commit: CommitId,
    session: &SessionId,
) -> Vec<u8> {
    let mut key = self::agent(tenant, agent);
    key.extend_from_slice(&first_commit.to_bytes());
    key.extend_from_slice(session.as_str().as_bytes());
    key
}

/// An idempotency key.
pub fn idempotency(tenant: &TenantId, hmac: &[u8; 32]) -> Vec<u8> {
    let mut key = prefix(&[tenant.as_str()]);
    key.extend_from_slice(hmac);
    key
}

/// When an idempotency key expires: sorts by time, so that what is long expired is found from the start.
pub fn idempotency_expiry(at: Micros, idempotency_key: &[u8]) -> Vec<u8> {
    let mut key = time(at).to_vec();
    key.extend_from_slice(idempotency_key);
    key
}

/// The prefix of a tenant's erasures that are done, or that are not: who looks for work reads no other.
pub fn erasures(tenant: &TenantId, done: bool) -> Vec<u8> {
    let mut key = prefix(&[tenant.as_str()]);
    key.push(u8::from(done));
    key
}

/// An erasure: tenant, whether it is done, event.
pub fn erasure(tenant: &TenantId, done: bool, event: EventId) -> Vec<u8> {
    let mut key = erasures(tenant, done);
    key.extend_from_slice(&event.as_u128().to_be_bytes());
    key
}

/// A token of a tenant by its id; the value is its hash.
pub fn token(tenant: &TenantId, id: &str) -> Vec<u8> {
    let mut key = prefix(&[tenant.as_str()]);
    key.extend_from_slice(id.as_bytes());
    key
}

/// A time as eight bytes that sort as the times do.
pub fn time(at: Micros) -> [u8; 8] {
    ((at.get() as u64) ^ (1 << 63)).to_be_bytes()
}

/// The inverse of [`time`].
pub fn read_time(bytes: [u8; 8]) -> Option<Micros> {
    Micros::new((u64::from_be_bytes(bytes) ^ (1 << 63)) as i64)
}

/// The first key after all keys that begin with `prefix` (none, if it is all 0xff).
pub fn after_prefix(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            break;
        }
    }
    end
}

/// Cuts a key behind its first zero byte: the text before it, and the rest.
pub fn cut(key: &[u8]) -> Option<(&str, &[u8])> {
    let end = key.iter().position(|b| *b == 0)?;
    Some((std::str::from_utf8(&key[..end]).ok()?, &key[end + 1..]))
}

/// Cuts a tenant off the front of a key.
pub fn cut_tenant(key: &[u8]) -> Option<(TenantId, &[u8])> {
    let (tenant, rest) = cut(key)?;
    Some((TenantId::parse(tenant).ok()?, rest))
}

/// The inverse of [`session`].
pub fn read_session(key: &[u8]) -> Option<(TenantId, SessionId)> {
    let (tenant, rest) = cut_tenant(key)?;
    let (session, rest) = cut(rest)?;
    Some((tenant, SessionId::parse(session).ok().filter(|_| rest.is_empty())?))
}

/// The inverse of [`segment`].
pub fn read_segment(key: &[u8]) -> Option<(TenantId, SessionId, Seq)> {
    let (rest, first) = key.split_last_chunk::<8>()?;
    let (tenant, session) = read_session(rest)?;
    Some((tenant, session, Seq::new(u64::from_be_bytes(*first))?))
}

/// The inverse of [`feed`], [`open`] and [`session_order`].
pub fn read_feed(key: &[u8]) -> Option<(TenantId, CommitId, SessionId)> {
    let (tenant, rest) = cut_tenant(key)?;
    let (commit, session) = read_commit_session(rest)?;
    Some((tenant, commit, session))
}

/// The inverse of [`batch`].
pub fn read_batch(key: &[u8]) -> Option<(TenantId, u64)> {
    let (tenant, rest) = cut_tenant(key)?;
    Some((tenant, u64::from_be_bytes(rest.try_into().ok()?)))
}

/// The inverse of [`segment_expiry`]: the time and the segment's key.
pub fn read_segment_expiry(key: &[u8]) -> Option<(Micros, &[u8])> {
    let (at, segment_key) = key.split_first_chunk::<8>()?;
    Some((read_time(*at)?, segment_key))
}

/// The inverse of [`agent`].
pub fn read_agent(key: &[u8]) -> Option<(TenantId, AgentId)> {
    let (tenant, rest) = cut_tenant(key)?;
    let (agent, rest) = cut(rest)?;
    Some((tenant, AgentId::parse(agent).ok().filter(|_| rest.is_empty())?))
}

/// The inverse of [`agent_session`].
pub fn read_agent_session(key: &[u8]) -> Option<(TenantId, AgentId, CommitId, SessionId)> {
    let (tenant, rest) = cut_tenant(key)?;
    let (agent, rest) = cut(rest)?;
    let (commit, session) = read_commit_session(rest)?;
    Some((tenant, AgentId::parse(agent).ok()?, commit, session))
}

/// A key of the time index, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimeKey {
    /// Whose.
    pub tenant: TenantId,
    /// The span class.
    pub class: u8,
    /// The segment's highest timestamp.
    pub time_max: Micros,
    /// Its commit.
    pub commit_id: CommitId,
    /// Its session.
    pub session_id: SessionId,
}

/// The inverse of [`time_index`].
pub fn read_time_index(key: &[u8]) -> Option<TimeKey> {
    let (tenant, rest) = cut_tenant(key)?;
    let (class, rest) = rest.split_first()?;
    let (time_max, rest) = rest.split_first_chunk::<8>()?;
    let (commit_id, session_id) = read_commit_session(rest)?;
    Some(TimeKey { tenant, class: *class, time_max: read_time(*time_max)?, commit_id, session_id })
}

fn read_commit_session(bytes: &[u8]) -> Option<(CommitId, SessionId)> {
    let (commit, session) = bytes.split_first_chunk::<16>()?;
    let session = SessionId::parse(std::str::from_utf8(session).ok()?).ok()?;
    Some((CommitId::from_bytes(*commit)?, session))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A key that changes its bytes makes every database unreadable: these may change only with an ADR.
    #[test]
    fn golden() {
        let tenant = TenantId::parse("acme").unwrap();
        let session = SessionId::parse("s-1").unwrap();
        let agent = AgentId::parse("bot").unwrap();
        let commit = CommitId::mint(0x0102_0304_0506, [0xff; 10]);
        let at = Micros::new(-1).unwrap();
        let hex = |key: Vec<u8>| crate::ids::hex(&key);
        let id = "0102030405067fffbffffffffffffc00";
        assert_eq!(
            hex(segment(&tenant, &session, Seq::new(258).unwrap())),
            "61636d6500732d31000000000000000102"
        );
        assert_eq!(hex(self::session(&tenant, &session)), "61636d6500732d3100");
        assert_eq!(hex(feed(&tenant, commit, &session)), format!("61636d6500{id}732d31"));
        assert_eq!(hex(session_order(&tenant, commit, &session)), format!("61636d6500{id}732d31"));
        assert_eq!(
            hex(time_index(&tenant, 3, at, commit, &session)),
            format!("61636d6500037fffffffffffffff{id}732d31")
        );
        assert_eq!(hex(self::agent(&tenant, &agent)), "61636d6500626f7400");
        assert_eq!(
            hex(agent_session(&tenant, &agent, commit, &session)),
            format!("61636d6500626f7400{id}732d31")
        );
        assert_eq!(hex(idempotency(&tenant, &[0xaa; 32])), format!("61636d6500{}", "aa".repeat(32)));
        assert_eq!(hex(idempotency_expiry(at, &[1])), "7fffffffffffffff01");
        assert_eq!(hex(token(&tenant, "id")), "61636d65006964");
        assert_eq!(hex(open(&tenant, commit, &session)), format!("61636d6500{id}732d31"));
        assert_eq!(hex(batch(&tenant, 258)), "61636d65000000000000000102");
        assert_eq!(hex(segment_expiry(at, &[1])), "7fffffffffffffff01");
    }

    #[test]
    fn keys_read_back() {
        let tenant = TenantId::parse("a").unwrap();
        let session = SessionId::parse("é s").unwrap();
        let agent = AgentId::parse("x").unwrap();
        let commit = CommitId::mint(7, [0; 10]);
        let seq = Seq::new(9).unwrap();
        assert_eq!(
            read_segment(&segment(&tenant, &session, seq)),
            Some((tenant.clone(), session.clone(), seq))
        );
        assert_eq!(
            read_feed(&feed(&tenant, commit, &session)),
            Some((tenant.clone(), commit, session.clone()))
        );
        assert_eq!(read_agent(&self::agent(&tenant, &agent)), Some((tenant.clone(), agent.clone())));
        assert_eq!(
            read_agent_session(&agent_session(&tenant, &agent, commit, &session)),
            Some((tenant.clone(), agent, commit, session.clone()))
        );
        assert_eq!(read_batch(&batch(&tenant, u64::MAX)), Some((tenant.clone(), u64::MAX)));
        let at = Micros::new(-5).unwrap();
        assert_eq!(read_segment_expiry(&segment_expiry(at, b"key")), Some((at, &b"key"[..])));
        let key = TimeKey { tenant, class: 4, time_max: Micros::MIN, commit_id: commit, session_id: session };
        let bytes = time_index(&key.tenant, 4, Micros::MIN, commit, &key.session_id);
        assert_eq!(read_time_index(&bytes), Some(key));
        for bad in [&b""[..], b"a", b"a\0", b"A\0\0", b"\xff\0"] {
            assert_eq!(read_segment(bad), None);
            assert_eq!(read_feed(bad), None);
            assert_eq!(read_time_index(bad), None);
            assert_eq!(read_batch(bad), None);
            assert_eq!(read_segment_expiry(bad), None);
        }
    }
}
