-- Uncorrectable errors of the GPU's SRAM are over NVIDIA's threshold: a criterion for replacement (RMA).
CREATE ALERT gpu_sram_threshold
WITH (severity = 'critical', "label.class" = 'hardware',
      summary = 'GPU {{ gpu_uuid }} on {{ host }}: SRAM errors over the threshold for replacement')
AS
SELECT host, gpu_uuid, bool_or(sram_threshold_exceeded) AS exceeded
FROM HOP(gpu, ts, INTERVAL '10 seconds', INTERVAL '2 minutes')
GROUP BY window_start, window_end, host, gpu_uuid
HAVING bool_or(sram_threshold_exceeded);
