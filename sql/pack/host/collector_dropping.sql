-- An agent threw rows away: the log or Kafka did not take them for longer than its spool lasts. Rules did not see what happened
-- then, and the history has a hole. Ours; it is told after the fact, since these rows too come when the way is free again.
CREATE ALERT collector_dropping
WITH (severity = 'warning', "label.class" = 'tidewatch',
      summary = '{{ host }} dropped {{ dropped }} rows of {{ collector }} in ten minutes: {{ message }}')
AS
SELECT host, collector, increase(dropped_rows_total) AS dropped, last(message) AS message
FROM HOP(collector, ts, INTERVAL '10 seconds', INTERVAL '10 minutes')
GROUP BY window_start, window_end, host, collector
HAVING increase(dropped_rows_total) > 0;
