-- The runs of a DAG begin five minutes after their time, on average over ten minutes: the scheduler does not come around, or the pools are full.
-- Source: Airflow's dagrun.schedule_delay and Grafana's mixin for it (60 s critical); five minutes are ours: a DAG's own objective should be set. The
-- names are those of the usual StatsD mapping, seconds, in the table metrics. A run that never begins tells no delay: airflow_sched_heartbeat.
CREATE ALERT airflow_dag_late
WITH (severity = 'warning', "label.class" = 'service', no_data = 'resolve',
      summary = 'runs of the DAG {{ dag_id }} begin {{ delay | round(0) | int }} s late')
AS
SELECT labels['dag_id'] AS dag_id, ratio(increase(value) FILTER (WHERE name = 'airflow_dagrun_schedule_delay_sum'),
       increase(value) FILTER (WHERE name = 'airflow_dagrun_schedule_delay_count')) AS delay
FROM HOP(metrics, ts, INTERVAL '10 seconds', INTERVAL '10 minutes')
WHERE name IN ('airflow_dagrun_schedule_delay_sum', 'airflow_dagrun_schedule_delay_count')
GROUP BY window_start, window_end, labels['dag_id']
HAVING ratio(increase(value) FILTER (WHERE name = 'airflow_dagrun_schedule_delay_sum'),
       increase(value) FILTER (WHERE name = 'airflow_dagrun_schedule_delay_count')) > setting('airflow_dag_late_seconds');
