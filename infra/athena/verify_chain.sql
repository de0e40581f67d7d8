-- Recomputes every digest, hash and link of the sessions from the rows themselves (docs/format.md, section 3), and
-- gives the rows that are wrong, with a code of docs/format.md, section 8. No row: every row is what was hashed.
--
-- What it cannot see: whether the hashes are those of the signed log. Who rewrites a session from an event to its end,
-- or takes its end away, is found by `quipu verify`. Derived columns are its business too.
WITH
-- Payloads go no further than this: what is sorted below is small.
event_rows AS (
  SELECT
    tenant,
    dt,
    "$path" AS path,
    session_id,
    sequence,
    event_id,
    timestamp_us,
    received_at_us,
    agent_id,
    event_type,
    severity,
    coalesce(source_id, '') AS source_id,
    compliance_tag,
    pii_types,
    redaction_count,
    coalesce(lower(to_hex(redaction_policy)), '') AS redaction_policy,
    lower(to_hex(prev_hash)) AS prev_hash,
    lower(to_hex(hash)) AS hash,
    -- Of an erased event the digest is all there is.
    lower(to_hex(coalesce(
      content_digest,
      sha256(to_utf8('quipu.content.v1' || chr(10)) || salt || to_utf8(payload || chr(10) || metadata))
    ))) AS digest,
    -- What the hash alone does not hold: whole content or none, sizes, nothing that is there and empty, no line break
    -- that would shift a line, one moment in both spellings (Athena's timestamps end at the millisecond), the event's
    -- own commit.
    coalesce(
      (
        (content_digest IS NULL AND length(to_hex(salt)) = 32 AND strpos(payload || metadata, chr(10)) = 0)
        OR (length(to_hex(content_digest)) = 64 AND salt IS NULL AND payload IS NULL AND metadata IS NULL)
      )
      AND (prev_hash IS NULL OR length(to_hex(prev_hash)) = 64)
      AND (redaction_policy IS NULL OR length(to_hex(redaction_policy)) = 64)
      AND (source_id IS NULL OR source_id <> '')
      AND strpos(
        session_id || event_id || agent_id || event_type || severity || coalesce(source_id, '') || compliance_tag
          || pii_types,
        chr(10)
      ) = 0
      AND abs(to_unixtime("timestamp") * 1e3 - timestamp_us / 1e3) <= 1
      AND abs(to_unixtime(received_at) * 1e3 - received_at_us / 1e3) <= 1
      AND commit_id = substr(event_id, 1, 33)
        || translate(substr(event_id, 34, 1), '0123456789abcdef', '000044448888cccc') || '00',
      false
    ) AS well_formed
  FROM events
  WHERE tenant = ? AND dt BETWEEN ? AND ?
),
linked AS (
  SELECT
    *,
    lag(path) OVER (PARTITION BY session_id ORDER BY sequence, path) AS path_before,
    lag(sequence) OVER (PARTITION BY session_id ORDER BY sequence, path) AS sequence_before,
    lag(hash) OVER (PARTITION BY session_id ORDER BY sequence, path) AS hash_before
  FROM event_rows
),
hashed AS (
  SELECT
    *,
    lower(to_hex(sha256(to_utf8(array_join(
      ARRAY[
        'quipu.event.v1',
        coalesce(prev_hash, hash_before),
        tenant,
        session_id,
        CAST(sequence AS varchar),
        event_id,
        CAST(timestamp_us AS varchar),
        CAST(received_at_us AS varchar),
        agent_id,
        event_type,
        severity,
        source_id,
        compliance_tag,
        pii_types,
        CAST(redaction_count AS varchar),
        redaction_policy,
        digest
      ],
      chr(10)
    ))))) AS expected
  FROM linked
),
judged AS (
  SELECT
    *,
    CASE
      WHEN NOT well_formed THEN 'syntax'
      -- A session's first row in a file says what it hangs on, no other does.
      WHEN (prev_hash IS NOT NULL) <> (path_before IS DISTINCT FROM path) THEN 'syntax'
      -- A session may have begun before the first day asked for; from there on no sequence is left out or repeated.
      WHEN sequence <> coalesce(sequence_before + 1, sequence) THEN 'sequence'
      WHEN prev_hash <> coalesce(hash_before, prev_hash) THEN 'prev_hash'
      WHEN (sequence = 0) <> (prev_hash IS NOT DISTINCT FROM lpad('', 64, '0')) THEN 'prev_hash'
      WHEN expected IS DISTINCT FROM hash THEN 'hash'
    END AS code
  FROM hashed
)
SELECT code, dt, path, session_id, sequence, event_id, expected, hash AS found
FROM judged
WHERE code IS NOT NULL
ORDER BY session_id, sequence, path
