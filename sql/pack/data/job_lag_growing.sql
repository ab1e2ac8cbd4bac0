-- The lag of a stage has grown for a quarter of an hour and is large: it reads less than comes, and will not catch up by itself. A lag that a
-- restart left and that shrinks is none, nor one that goes up and down. Source: the usual Kafka rules; growth by a fifth within the window is ours, and
-- so are 10,000 records, which each job should set.
CREATE ALERT job_lag_growing
WITH (severity = 'warning', "label.class" = 'service', for = '5 minutes',
      summary = 'stage {{ stage }} of {{ job }} lags {{ records }} records behind, {{ growth | round(0) | int }} more every minute')
AS
SELECT job, stage, last(lag_records) AS records, 60 * regr_slope(lag_records, extract(epoch FROM ts)) AS growth
FROM HOP(data_job, ts, INTERVAL '10 seconds', INTERVAL '15 minutes')
GROUP BY window_start, window_end, job, stage
HAVING min(lag_records) > setting('job_lag_growing_records')
   AND 900 * regr_slope(lag_records, extract(epoch FROM ts)) > setting('job_lag_growing_share') * min(lag_records);
