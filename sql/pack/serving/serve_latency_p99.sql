-- One request in a hundred takes longer than the service's objective, for five minutes and five more. The histograms of all replicas are added
-- up; under a hundred requests in five minutes a percentile is one unlucky request, and is not judged. Metrics: vllm:e2e_request_latency_seconds,
-- SGLang's of that name, tgi_request_duration. Source: the usual latency SLO; 60 s suits answers of some thousand tokens: whoever knows the service sets it.
CREATE ALERT serve_latency_p99
WITH (severity = 'critical', "label.class" = 'service', for = '5 minutes',
      summary = 'p99 of service {{ service }} is {{ p99 | round(2) }} s over {{ requests | int }} requests in five minutes ({{ metric }})')
AS
SELECT service, metric, histogram_quantile(0.99, le, grown) AS p99, sum(grown) FILTER (WHERE le > 1e300) AS requests
FROM (
  SELECT window_start, window_end, service, replica, metric, le, increase(count_total) AS grown
  FROM HOP(serve_histogram, ts, INTERVAL '1 minute', INTERVAL '5 minutes')
  WHERE metric LIKE '%e2e_request_latency_seconds' OR metric = 'tgi_request_duration'
  GROUP BY window_start, window_end, service, replica, metric, le
)
GROUP BY window_start, window_end, service, metric
HAVING histogram_quantile(0.99, le, grown) > setting('serve_latency_p99_seconds')
   AND sum(grown) FILTER (WHERE le > 1e300) >= setting('serve_latency_p99_requests');
