-- A collector has failed on every pass for a minute: what it watches is not watched. Silence is visible here, not taken for health.
CREATE ALERT collector_failing
WITH (severity = 'warning', "label.class" = 'tidewatch',
      for = '30 seconds',
      summary = 'collector {{ collector }} on {{ host }} fails: {{ message }}')
AS
SELECT host, collector, max(message) AS message
FROM HOP(collector, ts, INTERVAL '10 seconds', INTERVAL '1 minute')
GROUP BY window_start, window_end, host, collector
HAVING bool_and(NOT ok);
