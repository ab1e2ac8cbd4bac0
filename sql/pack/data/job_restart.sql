-- A data job restarted more than once within five minutes: it fails, restarts from its checkpoint, and fails at the same record again. One
-- restart is a machine that went, and what restarts are for. Source: the Flink rules of awesome-prometheus-alerts.
CREATE ALERT job_restart
WITH (severity = 'warning', "label.class" = 'service', keep_firing_for = '5 minutes', no_data = 'resolve',
      summary = 'stage {{ stage }} of {{ job }} restarted {{ restarts }} times within five minutes')
AS
SELECT job, stage, increase(restarts_total) AS restarts
FROM HOP(data_job, ts, INTERVAL '10 seconds', INTERVAL '5 minutes')
GROUP BY window_start, window_end, job, stage
HAVING increase(restarts_total) > setting('job_restart_restarts');
