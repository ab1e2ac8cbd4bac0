-- Event time of a stage is five minutes behind in every row of five minutes: its windows close late, and what reads their results sees the past.
-- Often one partition or one slow input holds it back. Source: Flink's advice on currentInputWatermark; the limit is ours. A stage to which nothing
-- comes has no event time to go by: where a lag is told and it is zero, it is left alone.
CREATE ALERT job_watermark_behind
WITH (severity = 'warning', "label.class" = 'service', for = '1 minute', recover_when = 'behind < 150',
      summary = 'event time of stage {{ stage }} of {{ job }} is {{ behind | round(0) | int }} s behind')
AS
SELECT job, stage, min(watermark_lag_seconds) AS behind
FROM HOP(data_job, ts, INTERVAL '10 seconds', INTERVAL '5 minutes')
GROUP BY window_start, window_end, job, stage
HAVING min(watermark_lag_seconds) > setting('job_watermark_behind_seconds')
   AND count(watermark_lag_seconds) >= 5 AND coalesce(max(lag_records) > 0, true);
