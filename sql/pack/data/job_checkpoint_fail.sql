-- More than one checkpoint of a Flink job failed within ten minutes: after the next fault it begins where the last good one was, and state that
-- can't be written is often a store that is full or gone. One failure is a time-out under load. Source: the Flink rules of awesome-prometheus-alerts.
-- data_job has no column for it: Flink's own numberOfFailedCheckpoints, as its Prometheus reporter names it, in the table metrics.
CREATE ALERT job_checkpoint_fail
WITH (severity = 'warning', "label.class" = 'service', keep_firing_for = '5 minutes', no_data = 'resolve',
      summary = '{{ failures | int }} checkpoints of {{ job }} failed within ten minutes')
AS
SELECT labels['job_name'] AS job, labels['job_id'] AS job_id, increase(value) AS failures
FROM HOP(metrics, ts, INTERVAL '10 seconds', INTERVAL '10 minutes')
WHERE name = 'flink_jobmanager_job_numberOfFailedCheckpoints'
GROUP BY window_start, window_end, labels['job_name'], labels['job_id']
HAVING increase(value) > setting('job_checkpoint_fail_failures');
