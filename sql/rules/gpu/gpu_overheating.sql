-- A GPU averages over 85 degrees for two minutes: it will slow down, then shut down. A single bad sample or a short peak does not
-- count. One that is slowed down, or whose job writes a checkpoint, cools for minutes and cooks again: that is one alert, until ten
-- minutes were cool. Threshold: ours, below the slow-down of SXM boards (87 to 92).
CREATE ALERT gpu_overheating
WITH (severity = 'critical', "label.class" = 'hardware',
      for = '1 minute',
      keep_firing_for = '10 minutes',
      summary = 'GPU {{ gpu_uuid }} on {{ host }} averages {{ average }} C')
AS
SELECT host, gpu_uuid, avg(temperature_celsius) AS average
FROM HOP(gpu, ts, INTERVAL '10 seconds', INTERVAL '1 minute')
GROUP BY window_start, window_end, host, gpu_uuid
HAVING avg(temperature_celsius) > 85;
