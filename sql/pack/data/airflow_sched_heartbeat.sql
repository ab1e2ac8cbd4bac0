-- Airflow's scheduler has not counted its heart on for two minutes: no task of any DAG is started. It beats every five seconds. The counter stays
-- where it is while the exporter that took its last value goes on telling it. Source: Airflow's advice on scheduler_heartbeat; two minutes are
-- ours (a new version is rolled out in less). Airflow's StatsD name behind the Prometheus exporter, in the table metrics.
CREATE ALERT airflow_sched_heartbeat
WITH (severity = 'critical', "label.class" = 'service', for = '30 seconds',
      summary = 'the scheduler of Airflow has had no heartbeat for two minutes: no task is started')
AS
SELECT labels['instance'] AS instance, increase(value) AS beats
FROM HOP(metrics, ts, INTERVAL '10 seconds', INTERVAL '2 minutes')
WHERE name IN ('airflow_scheduler_heartbeat', 'airflow_scheduler_heartbeat_total')
GROUP BY window_start, window_end, labels['instance']
HAVING increase(value) = 0 AND max(ts) - min(ts) >= INTERVAL '60 seconds';
