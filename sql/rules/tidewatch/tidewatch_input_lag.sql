-- Records wait in the log: the engine does not keep up, or the broker does not give them in time. Alerts come late, and what is late
-- long enough is a dead letter. 20,000 records are some ten seconds of a large fleet.
CREATE ALERT tidewatch_input_lag
WITH (severity = 'critical', "label.class" = 'tidewatch', for = '1 minute', recover_when = 'waiting < 2000',
      no_data = 'resolve',
      summary = '{{ waiting }} records of {{ table_name }} wait to be read: alerts come late')
AS
SELECT labels['table'] AS table_name, labels['part'] AS part, min(value) AS waiting
FROM HOP(metrics, ts, INTERVAL '10 seconds', INTERVAL '1 minute')
WHERE name = 'tidewatch_lag_records'
GROUP BY window_start, window_end, labels['table'], labels['part']
HAVING min(value) > 20000;
