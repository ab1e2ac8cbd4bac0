-- The driver advises to drain peer-to-peer work from this GPU (3): let jobs end and send no new ones.
-- Source: NVML's field 230.
CREATE ALERT gpu_drain_advised
WITH (severity = 'warning', "label.class" = 'hardware',
      summary = 'GPU {{ gpu_uuid }} on {{ host }} should be drained')
AS
SELECT host, gpu_uuid, max(recovery_action) AS action
FROM HOP(gpu, ts, INTERVAL '10 seconds', INTERVAL '2 minutes')
GROUP BY window_start, window_end, host, gpu_uuid
HAVING max(recovery_action) = 3;
