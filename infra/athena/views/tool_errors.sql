-- Calls of tools that failed: one row for each.
SELECT
  tenant,
  dt,
  session_id,
  sequence,
  event_id,
  "timestamp",
  agent_id,
  tool_name,
  call_id,
  duration_ms,
  CAST(json_extract_scalar(payload, '$.errorCode') AS varchar) AS error_code,
  -- An error may be any JSON value: text as it is, the rest as JSON, written anew (1.0 may be 1). The payload has it as
  -- it came.
  CAST(coalesce(json_extract_scalar(payload, '$.error'), json_format(json_extract(payload, '$.error'))) AS varchar) AS error
FROM events
WHERE event_type = 'tool_error' OR (tool_name IS NOT NULL AND NOT success)
