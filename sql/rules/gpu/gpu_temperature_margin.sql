-- Five degrees or less are left to the temperature at which this model slows down, whatever that is. Source: gpud, NVSentinel.
CREATE ALERT gpu_temperature_margin
WITH (severity = 'warning', "label.class" = 'hardware',
      for = '1 minute',
      summary = 'GPU {{ gpu_uuid }} on {{ host }}: {{ average }} C, it slows down at {{ limit }} C')
AS
SELECT host, gpu_uuid, avg(temperature_celsius) AS average, max(temperature_slowdown_celsius) AS limit
FROM HOP(gpu, ts, INTERVAL '10 seconds', INTERVAL '1 minute')
GROUP BY window_start, window_end, host, gpu_uuid
HAVING avg(temperature_celsius) >= max(temperature_slowdown_celsius) - 5;
