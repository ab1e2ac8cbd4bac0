-- The GPU says in most of its samples that heat slows it down: the hardware (bit 64) or, before it, the driver (32).
-- Counterpart of gpu_thermal_throttle, whose counter of the hardware's throttling older boards don't have and which does not
-- count the driver's. Threshold: gpud's (six of ten samples, over ten minutes).
CREATE ALERT gpu_thermal_throttle_flag
WITH (severity = 'warning', "label.class" = 'hardware',
      for = '8 minutes',
      summary = 'GPU {{ gpu_uuid }} on {{ host }}: heat slows it down in {{ share }} of the samples, at {{ temperature }} C')
AS
SELECT host, gpu_uuid, round(avg(CAST((throttle_reasons & 96) <> 0 AS DOUBLE)), 2) AS share,
       round(avg(temperature_celsius), 1) AS temperature
FROM HOP(gpu, ts, INTERVAL '10 seconds', INTERVAL '2 minutes')
GROUP BY window_start, window_end, host, gpu_uuid
HAVING avg(CAST((throttle_reasons & 96) <> 0 AS DOUBLE)) >= setting('gpu_thermal_throttle_flag_ratio')
   AND coalesce(increase(throttle_thermal_hw_ns_total), 0) = 0;
