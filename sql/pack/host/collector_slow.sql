-- A collector takes over five seconds for each pass, for ten minutes: it still answers, and what it asks is about to hang. With
-- the driver that is the time before it is wedged. Threshold: nvidia_gpu_exporter, whose passes are below a second on a healthy
-- machine.
CREATE ALERT collector_slow
WITH (severity = 'warning', "label.class" = 'tidewatch',
      for = '10 minutes',
      summary = 'collector {{ collector }} on {{ host }} takes {{ seconds }} s for a pass')
AS
SELECT host, collector, round(min(duration_seconds), 1) AS seconds
FROM HOP(collector, ts, INTERVAL '10 seconds', INTERVAL '1 minute')
GROUP BY window_start, window_end, host, collector
HAVING min(duration_seconds) > setting('collector_slow_seconds');
