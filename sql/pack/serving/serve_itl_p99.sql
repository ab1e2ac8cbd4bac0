-- One token in a hundred comes half a second after the one before: answers stutter. Long prompts that are computed between, preemptions, a slow GPU.
-- Metrics: vllm:inter_token_latency_seconds, vllm:time_per_output_token_seconds of older ones, SGLang's of these names; each is judged by itself.
-- Source: the dashboards of vLLM and SGLang; 0.5 s is ours: reading speed is some ten tokens a second.
CREATE ALERT serve_itl_p99
WITH (severity = 'warning', "label.class" = 'performance', for = '5 minutes',
      summary = 'p99 between two tokens of service {{ service }} is {{ p99 | round(3) }} s over {{ tokens | int }} tokens in five minutes ({{ metric }})')
AS
SELECT service, metric, histogram_quantile(0.99, le, grown) AS p99, sum(grown) FILTER (WHERE le > 1e300) AS tokens
FROM (
  SELECT window_start, window_end, service, replica, metric, le, increase(count_total) AS grown
  FROM HOP(serve_histogram, ts, INTERVAL '1 minute', INTERVAL '5 minutes')
  WHERE metric LIKE '%inter_token_latency_seconds' OR metric LIKE '%:time_per_output_token_seconds'
  GROUP BY window_start, window_end, service, replica, metric, le
)
GROUP BY window_start, window_end, service, metric
HAVING histogram_quantile(0.99, le, grown) > setting('serve_itl_p99_seconds')
   AND sum(grown) FILTER (WHERE le > 1e300) >= setting('serve_itl_p99_tokens');
