-- One task in ten fails: they are tried again elsewhere, and the stage takes longer and longer until one fails for the last time and takes the job
-- with it. Counted over what ended within five minutes, five failures at least (ours), so that it ends when they end. Source: the Spark rules of
-- awesome-prometheus-alerts.
CREATE ALERT job_task_fail_rate
WITH (severity = 'warning', "label.class" = 'service', for = '1 minute', no_data = 'resolve',
      summary = 'stage {{ stage }} of {{ job }}: {{ failed }} of the {{ ended }} tasks that ended within five minutes failed')
AS
SELECT job, stage, increase(tasks_failed) AS failed, increase(tasks_failed) + coalesce(increase(tasks_done), 0) AS ended
FROM HOP(data_job, ts, INTERVAL '10 seconds', INTERVAL '5 minutes')
GROUP BY window_start, window_end, job, stage
HAVING ratio(increase(tasks_failed), increase(tasks_failed) + coalesce(increase(tasks_done), 0)) > setting('job_task_fail_rate_ratio')
   AND increase(tasks_failed) >= setting('job_task_fail_rate_tasks');
