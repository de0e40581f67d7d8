-- What each model cost on each day.
SELECT
  day,
  provider,
  model,
  sum(calls) AS calls,
  sum(input_tokens) AS input_tokens,
  sum(output_tokens) AS output_tokens,
  sum(cost_usd) AS cost_usd
FROM cost_by_model_and_day
WHERE tenant = ? AND dt BETWEEN ? AND ?
GROUP BY day, provider, model
ORDER BY day, cost_usd DESC, provider, model
