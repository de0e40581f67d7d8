-- The slowest tools by their average, and the slowest call of each.
SELECT
  tool_name,
  sum(calls) AS calls,
  sum(failures) AS failures,
  sum(total_ms) / sum(calls) AS average_ms,
  max(slowest_ms) AS slowest_ms,
  max_by(slowest_event_id, slowest_ms) AS slowest_event_id
FROM slowest_tools
WHERE tenant = ? AND dt BETWEEN ? AND ?
GROUP BY tool_name
ORDER BY average_ms DESC, tool_name
