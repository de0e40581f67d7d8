-- A session step by step, in the order of its chain: filter on session_id, order by sequence.
-- since_previous_ms is null for the first event of a session in a day of batches, and below zero if clocks disagree.
SELECT
  tenant,
  dt,
  session_id,
  sequence,
  event_id,
  "timestamp",
  CAST(
    (timestamp_us - lag(timestamp_us) OVER (PARTITION BY tenant, dt, session_id ORDER BY sequence)) / 1e3 AS double
  ) AS since_previous_ms,
  agent_id,
  event_type,
  severity,
  tool_name,
  call_id,
  model,
  success,
  duration_ms,
  total_tokens,
  cost_usd,
  CAST(substr(payload, 1, 200) AS varchar) AS payload_start
FROM events
