-- What models cost, by the day that the call's own timestamp names (UTC): as a session counts it.
-- dt is the day of the batch: a day's calls may lie in more than one, so add the rows of a day up.
SELECT
  tenant,
  dt,
  CAST(date("timestamp") AS date) AS day,
  provider,
  model,
  CAST(count_if(event_type = 'llm_response') AS bigint) AS calls,
  CAST(coalesce(sum(input_tokens) FILTER (WHERE event_type = 'llm_response'), 0) AS bigint) AS input_tokens,
  CAST(coalesce(sum(output_tokens) FILTER (WHERE event_type = 'llm_response'), 0) AS bigint) AS output_tokens,
  CAST(coalesce(sum(cost_usd), 0) AS decimal(38, 12)) AS cost_usd
FROM events
WHERE event_type IN ('llm_response', 'cost_tracked')
GROUP BY tenant, dt, date("timestamp"), provider, model
