-- The tokens of one replica come half as slow again as those of its service's usual replica: a throttled GPU, a bad link, a neighbour. Judged by
-- the median time between two tokens, which hardly depends on how long the answers are; three replicas and 1,000 tokens each in ten minutes. Metrics:
-- those of serve_itl_p99. Thresholds: ours.
CREATE ALERT serve_replica_outlier
WITH (severity = 'warning', "label.class" = 'performance', for = '3 minutes', no_data = 'resolve',
      summary = 'replica {{ replica }} of {{ service }}: {{ seconds | round(4) }} s between two tokens, the usual replica {{ usual | round(4) }} s ({{ metric }})')
AS
WITH grown AS (
  SELECT window_start, window_end, service, replica, metric, le, increase(count_total) AS grown
  FROM HOP(serve_histogram, ts, INTERVAL '1 minute', INTERVAL '10 minutes')
  WHERE metric LIKE '%inter_token_latency_seconds' OR metric LIKE '%:time_per_output_token_seconds'
  GROUP BY window_start, window_end, service, replica, metric, le
), of_replica AS (
  SELECT window_start, window_end, service, replica, metric, histogram_quantile(0.5, le, grown) AS seconds
  FROM grown
  GROUP BY window_start, window_end, service, replica, metric
  HAVING sum(grown) FILTER (WHERE le > 1e300) >= 1000
), beside AS (
  SELECT service, replica, metric, seconds, median(seconds) OVER (PARTITION BY service, metric) AS usual,
         count(*) OVER (PARTITION BY service, metric) AS replicas
  FROM of_replica
)
SELECT service, replica, metric, seconds, usual
FROM beside
WHERE replicas >= 3 AND seconds > setting('serve_replica_outlier_times') * usual;
