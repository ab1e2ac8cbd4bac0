-- The driver itself says that this GPU needs a reset or its machine a reboot (1 reset, 2 reboot, 4 drain and reset).
-- Source: NVML's field 230; DCGM and nvidia_gpu_exporter page on it.
CREATE ALERT gpu_recovery_action
WITH (severity = 'critical', "label.class" = 'hardware',
      summary = 'GPU {{ gpu_uuid }} on {{ host }} asks for recovery action {{ action }}')
AS
SELECT host, gpu_uuid, max(recovery_action) AS action
FROM HOP(gpu, ts, INTERVAL '10 seconds', INTERVAL '2 minutes')
GROUP BY window_start, window_end, host, gpu_uuid
HAVING max(recovery_action) IN (1, 2, 4);
