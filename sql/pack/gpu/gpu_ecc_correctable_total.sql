-- The memory was corrected twenty million times since the driver was loaded. Nothing is lost yet; a row is wearing out, and the
-- uncorrectable error comes next. Threshold: Azure's node health checks (20 million); Meta's gcm takes 50 million.
CREATE ALERT gpu_ecc_correctable_total
WITH (severity = 'warning', "label.class" = 'hardware',
      summary = 'GPU {{ gpu_uuid }} on {{ host }}: {{ errors }} corrected memory errors since the driver was loaded')
AS
SELECT host, gpu_uuid, max(ecc_corrected_volatile_total) AS errors
FROM HOP(gpu, ts, INTERVAL '10 seconds', INTERVAL '2 minutes')
GROUP BY window_start, window_end, host, gpu_uuid
HAVING max(ecc_corrected_volatile_total) > setting('gpu_ecc_correctable_total_errors');
