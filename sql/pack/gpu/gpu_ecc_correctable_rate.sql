-- A GPU's memory is corrected far more often than that of others of its model, and goes on so: its memory degrades. Six times
-- the median absolute deviation (MAD) beyond the median, as for every outlier here; most GPUs have no errors at all, hence a
-- floor beside it. Ours: no source has a sound rate; DCGM's own limit of 10 is a dummy that nothing uses. One burst is over
-- long before `for` is.
CREATE ALERT gpu_ecc_correctable_rate
WITH (severity = 'warning', "label.class" = 'hardware',
      every = '1 minute', over = '2 minutes', for = '10 minutes',
      summary = 'GPU {{ gpu_uuid }} on {{ host }}: {{ errors }} corrected memory errors in two minutes, others have {{ usual }}')
AS
WITH counted AS (
  SELECT host, gpu_uuid, max(gpu_name) AS gpu_name, increase(ecc_corrected_volatile_total) AS errors
  FROM gpu
  WHERE ecc_corrected_volatile_total IS NOT NULL
  GROUP BY host, gpu_uuid),
middle AS (SELECT gpu_name, median(errors) AS errors FROM counted GROUP BY gpu_name),
spread AS (
  SELECT m.gpu_name, max(m.errors) AS errors, median(abs(c.errors - m.errors)) AS deviation
  FROM counted c JOIN middle m ON m.gpu_name = c.gpu_name
  GROUP BY m.gpu_name)
SELECT c.host, c.gpu_uuid, c.errors, s.errors AS usual
FROM counted c JOIN spread s ON s.gpu_name = c.gpu_name
WHERE c.errors > s.errors + greatest(
        setting('gpu_ecc_correctable_rate_deviations') * s.deviation,
        setting('gpu_ecc_correctable_rate_errors'));
