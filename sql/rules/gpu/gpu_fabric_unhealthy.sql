-- The GPU has not joined the NVSwitch fabric (1 not started, 2 in progress; 3 is joined, 0 has no fabric): jobs over several
-- GPUs fail at their start. Source: DCGM, gpud.
CREATE ALERT gpu_fabric_unhealthy
WITH (severity = 'critical', "label.class" = 'hardware',
      for = '5 minutes',
      summary = 'GPU {{ gpu_uuid }} on {{ host }}: fabric state {{ state }}')
AS
SELECT host, gpu_uuid, max(fabric_state) AS state
FROM HOP(gpu, ts, INTERVAL '10 seconds', INTERVAL '1 minute')
GROUP BY window_start, window_end, host, gpu_uuid
HAVING max(fabric_state) IN (1, 2);
