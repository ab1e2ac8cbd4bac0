-- One request in twenty waits longer for its first token than the objective: prompts queue, or are computed too slowly. Metrics:
-- vllm:time_to_first_token_seconds, SGLang's of that name. Source: the dashboards of vLLM and SGLang; 5 s is ours, each site has its own.
CREATE ALERT serve_ttft_p95
WITH (severity = 'warning', "label.class" = 'service', for = '5 minutes',
      summary = 'p95 of the time to the first token of service {{ service }} is {{ p95 | round(2) }} s over {{ requests | int }} requests in five minutes')
AS
SELECT service, metric, histogram_quantile(0.95, le, grown) AS p95, sum(grown) FILTER (WHERE le > 1e300) AS requests
FROM (
  SELECT window_start, window_end, service, replica, metric, le, increase(count_total) AS grown
  FROM HOP(serve_histogram, ts, INTERVAL '1 minute', INTERVAL '5 minutes')
  WHERE metric LIKE '%time_to_first_token_seconds'
  GROUP BY window_start, window_end, service, replica, metric, le
)
GROUP BY window_start, window_end, service, metric
HAVING histogram_quantile(0.95, le, grown) > setting('serve_ttft_p95_seconds')
   AND sum(grown) FILTER (WHERE le > 1e300) >= setting('serve_ttft_p95_requests');
