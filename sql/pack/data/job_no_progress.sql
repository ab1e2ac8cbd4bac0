-- A stage of a data job has read and written nothing for ten minutes, finished no task, and there is work for it: records that wait in every row of
-- that time. Its processes live and answer; a lock, a dead connection or a poisoned record holds it. Source: the Flink rules of
-- awesome-prometheus-alerts and the article that this project began with. Where no lag is told but tasks are left to do (a batch), it is a
-- warning: one long task looks the same. Rows that stop are no progress either, and change nothing here.
CREATE ALERT job_no_progress
WITH (severity = 'critical', "label.class" = 'service',
      summary = 'stage {{ stage }} of {{ job }} has done nothing for ten minutes; at least {{ waiting }} records or tasks wait')
AS
SELECT job, stage, coalesce(min(lag_records), min(tasks_total - tasks_done)) AS waiting,
       CASE WHEN min(lag_records) > 0 THEN 'critical' ELSE 'warning' END AS severity
FROM HOP(data_job, ts, INTERVAL '10 seconds', INTERVAL '10 minutes')
GROUP BY window_start, window_end, job, stage
HAVING coalesce(increase(records_in_total), 0) + coalesce(increase(records_out_total), 0) = 0
   AND coalesce(max(tasks_done) - min(tasks_done), 0) = 0
   AND count(records_in_total) + count(records_out_total) + count(tasks_done) > 0
   -- A window that begins before the first row, or has a hole, says less than ten minutes.
   AND max(ts) - min(ts) >= INTERVAL '9 minutes'
   AND coalesce(min(lag_records) > setting('job_no_progress_records'), min(tasks_total - tasks_done) > 0, false);
