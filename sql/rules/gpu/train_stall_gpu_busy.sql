-- Every GPU of a job spins at full utilisation and draws little power: kernels wait for each other, a collective hangs. Training does
-- not go on, though everything looks busy. Source: ByteRobust (SOSP 2025) on hangs; the thresholds are ours.
CREATE ALERT train_stall_gpu_busy
WITH (severity = 'critical', "label.class" = 'service',
      for = '1 minute',
      summary = 'job {{ job }} hangs: {{ gpus }} GPUs busy at {{ most_power }} W at most')
AS
SELECT job, count(DISTINCT gpu_uuid) AS gpus, max(power_watts) AS most_power
FROM HOP(gpu, ts, INTERVAL '10 seconds', INTERVAL '1 minute')
WHERE job IS NOT NULL
GROUP BY window_start, window_end, job
HAVING min(utilization_ratio) >= 0.95 AND ratio(max(power_watts), max(power_limit_watts)) < 0.45;
