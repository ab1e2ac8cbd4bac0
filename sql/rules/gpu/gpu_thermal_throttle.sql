-- The hardware slows the GPU down to save itself from heat. Any is too much: DCGM alarms on each increase within a minute.
CREATE ALERT gpu_thermal_throttle
WITH (severity = 'warning', "label.class" = 'hardware',
      for = '1 minute',
      summary = 'GPU {{ gpu_uuid }} on {{ host }} was slowed down by heat for {{ share }} of the time')
AS
SELECT host, gpu_uuid, ratio(increase(throttle_thermal_hw_ns_total), 60e9) AS share
FROM HOP(gpu, ts, INTERVAL '10 seconds', INTERVAL '1 minute')
GROUP BY window_start, window_end, host, gpu_uuid
HAVING increase(throttle_thermal_hw_ns_total) > 0;
