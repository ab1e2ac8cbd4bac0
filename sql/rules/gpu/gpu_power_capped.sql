-- For more than half of the time the power limit holds the clocks down: the job is slower than its neighbours.
-- Source: the throttle counters that DCGM alarms on; the share is ours, since short capping at full load is normal.
CREATE ALERT gpu_power_capped
WITH (severity = 'warning', "label.class" = 'performance',
      for = '1 minute',
      summary = 'GPU {{ gpu_uuid }} on {{ host }} is held down {{ share }} of the time')
AS
SELECT host, gpu_uuid, ratio(increase(throttle_power_ns_total), 60e9) AS share
FROM HOP(gpu, ts, INTERVAL '10 seconds', INTERVAL '1 minute')
GROUP BY window_start, window_end, host, gpu_uuid
HAVING ratio(increase(throttle_power_ns_total), 60e9) > 0.5;
