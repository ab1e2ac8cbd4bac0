-- Rows come, and event time does not move with them: a source sends old rows, or a clock is wrong. Windows stay open, and their alerts
-- do not come. A source that is silent holds nobody back for longer than engine.idle_timeout.
CREATE ALERT tidewatch_watermark_stuck
WITH (severity = 'critical', "label.class" = 'tidewatch', for = '1 minute', recover_when = 'behind < 60',
      no_data = 'resolve',
      summary = 'event time of {{ table_name }} is {{ behind }} seconds behind: its windows stay open')
AS
SELECT labels['table'] AS table_name, labels['part'] AS part, min(value) AS behind
FROM HOP(metrics, ts, INTERVAL '10 seconds', INTERVAL '1 minute')
WHERE name = 'tidewatch_watermark_lag_seconds'
GROUP BY window_start, window_end, labels['table'], labels['part']
HAVING min(value) > 300;
