-- The GPU's memory gave back something else than was written. Results can't be trusted; drain it and run diagnostics.
-- Threshold: any (DCGM, Meta's gcm, nvidia_gpu_exporter).
CREATE ALERT gpu_ecc_uncorrectable
WITH (severity = 'critical', "label.class" = 'hardware',
      summary = 'GPU {{ gpu_uuid }} on {{ host }}: {{ errors }} uncorrectable memory errors')
AS
SELECT host, gpu_uuid, max(ecc_uncorrected_volatile_total) AS errors
FROM HOP(gpu, ts, INTERVAL '10 seconds', INTERVAL '2 minutes')
GROUP BY window_start, window_end, host, gpu_uuid
HAVING max(ecc_uncorrected_volatile_total) > 0;
