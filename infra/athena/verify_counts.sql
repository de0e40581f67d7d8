-- What is in each file, and whether files and sessions are whole: one row for each file, ok where nothing is wrong.
-- event_count, sessions, commit_first and commit_last are those of the batch's header under log/.
--
-- repeated_events: rows whose event_id stands in an earlier row too. repeated_sequences, missing_sequences: rows whose
-- sequence is that of the row before in the session, or leaves some out (the first row of a session in the days asked
-- for has none before it). files_of_batch: files with this batch number, which must be one. missing_batches: numbers
-- left out before this one, within the days asked for (-1 beside a batch that is there twice). misplaced: not in the folder of its newest commit's day.
WITH
event_rows AS (
  SELECT
    dt,
    "$path" AS path,
    CAST(regexp_extract("$path", 'batch-([0-9]{20})\.parquet$', 1) AS bigint) AS batch,
    session_id,
    event_id,
    commit_id,
    "timestamp",
    row_number() OVER (PARTITION BY event_id ORDER BY "$path", session_id, sequence) AS copy,
    -- No row before it: no step is wrong.
    coalesce(sequence - lag(sequence) OVER (PARTITION BY session_id ORDER BY sequence, "$path"), 1) AS step
  FROM events
  WHERE tenant = ? AND dt BETWEEN ? AND ?
),
files AS (
  SELECT
    dt,
    path,
    batch,
    count(*) AS event_count,
    count(DISTINCT session_id) AS sessions,
    min(commit_id) AS commit_first,
    max(commit_id) AS commit_last,
    min("timestamp") AS time_min,
    max("timestamp") AS time_max,
    count_if(copy > 1) AS repeated_events,
    count_if(step = 0) AS repeated_sequences,
    count_if(step > 1) AS missing_sequences,
    -- The first 48 bits of a commit's id are its time in milliseconds.
    from_base(substr(max(commit_id), 1, 8) || substr(max(commit_id), 10, 4), 16)
      - to_unixtime(CAST(dt || ' 00:00:00' AS timestamp)) * 1e3 AS ms_into_day
  FROM event_rows
  GROUP BY dt, path, batch
),
numbered AS (
  SELECT
    *,
    count(*) OVER (PARTITION BY batch) AS files_of_batch,
    coalesce(batch - lag(batch) OVER (ORDER BY batch, path) - 1, 0) AS missing_batches,
    ms_into_day < 0 OR ms_into_day >= 86400000 AS misplaced
  FROM files
)
SELECT
  batch,
  dt,
  path,
  event_count,
  sessions,
  commit_first,
  commit_last,
  time_min,
  time_max,
  repeated_events,
  repeated_sequences,
  missing_sequences,
  files_of_batch,
  missing_batches,
  misplaced,
  batch IS NOT NULL
    AND repeated_events = 0
    AND repeated_sequences = 0
    AND missing_sequences = 0
    AND files_of_batch = 1
    AND missing_batches = 0
    AND NOT misplaced AS ok
FROM numbered
ORDER BY batch, path
