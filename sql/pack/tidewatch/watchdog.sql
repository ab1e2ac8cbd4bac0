-- Fires always, and is no fault: it says that rows are read, windows close, rules are judged and notices go out. Who should notice its absence sits
-- outside: route it to a dead man's switch, or to an Alertmanager that has one, and to nobody's telephone. Source: kube-prometheus' Watchdog.
-- It is over when the engine's own figures stop coming, which nobody inside can tell any more. heartbeat in the alerting file is shorter and passes
-- by rules and routes; this one goes the way of every alert.
CREATE ALERT watchdog
WITH (severity = 'info', "label.class" = 'tidewatch', no_data = 'resolve',
      summary = 'Tidewatch is awake: {{ figures }} of its own figures came within a minute. No fault; its absence is one')
AS
SELECT count(*) AS figures
FROM HOP(metrics, ts, INTERVAL '10 seconds', INTERVAL '1 minute')
WHERE name = 'tidewatch_lake_failures_total'
HAVING count(*) > 0;
