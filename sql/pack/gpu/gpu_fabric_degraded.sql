-- A GPU has joined the NVSwitch fabric and its way there is ill: less bandwidth, a route that is ill or recovers, an access that
-- timed out, or a wrong configuration, as the driver says (fabric_health). gpu_fabric_unhealthy is about GPUs that have not
-- joined. Jobs over several GPUs are slow or fail. Source: DCGM, gpud.
CREATE ALERT gpu_fabric_degraded
WITH (severity = 'critical', "label.class" = 'hardware',
      for = '5 minutes',
      summary = 'GPU {{ gpu_uuid }} on {{ host }}: its NVLink fabric is degraded, health {{ health }}')
AS
SELECT host, gpu_uuid, max(fabric_health) AS health
FROM HOP(gpu, ts, INTERVAL '10 seconds', INTERVAL '1 minute')
GROUP BY window_start, window_end, host, gpu_uuid
HAVING bool_or(fabric_degraded);
