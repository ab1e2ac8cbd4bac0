-- The machine pulls the power brake: a power supply or the rack is over its limit. Source: nvidia_gpu_exporter, gpud.
CREATE ALERT gpu_power_brake
WITH (severity = 'warning', "label.class" = 'hardware',
      for = '1 minute',
      summary = 'GPU {{ gpu_uuid }} on {{ host }}: the power brake held it for {{ share }} of the time')
AS
SELECT host, gpu_uuid, ratio(increase(throttle_brake_ns_total), 60e9) AS share
FROM HOP(gpu, ts, INTERVAL '10 seconds', INTERVAL '1 minute')
GROUP BY window_start, window_end, host, gpu_uuid
HAVING increase(throttle_brake_ns_total) > 0;
