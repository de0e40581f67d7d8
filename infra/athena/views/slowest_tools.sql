-- How long tools take, for each tool and day of the batch. p95_ms is an estimate; the rest is exact.
SELECT
  tenant,
  dt,
  tool_name,
  CAST(count(*) AS bigint) AS calls,
  CAST(count_if(NOT success) AS bigint) AS failures,
  CAST(sum(duration_ms) AS double) AS total_ms,
  CAST(approx_percentile(duration_ms, 0.95) AS double) AS p95_ms,
  CAST(max(duration_ms) AS double) AS slowest_ms,
  CAST(max_by(event_id, duration_ms) AS varchar) AS slowest_event_id
FROM events
WHERE tool_name IS NOT NULL AND duration_ms IS NOT NULL
GROUP BY tenant, dt, tool_name
