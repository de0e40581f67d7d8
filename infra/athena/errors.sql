-- Which tools failed how, most often first.
SELECT tool_name, error_code, count(*) AS failures, max("timestamp") AS latest
FROM tool_errors
WHERE tenant = ? AND dt BETWEEN ? AND ?
GROUP BY tool_name, error_code
ORDER BY failures DESC, tool_name, error_code
