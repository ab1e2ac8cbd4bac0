-- A GPU draws far more or less power than the others of its job at the same utilisation: less is a straggler before it shows in
-- the step times (kernels wait, clocks are down), more a board or a cooling that differs. Six times the median absolute
-- deviation (MAD) from the median of the job, a tenth of the median at least, in jobs of eight GPUs and more. Ours.
CREATE ALERT gpu_power_outlier
WITH (severity = 'warning', "label.class" = 'hardware',
      every = '1 minute', over = '2 minutes', for = '8 minutes',
      summary = 'GPU {{ gpu_uuid }} on {{ host }} draws {{ power }} W, the {{ gpus }} GPUs of job {{ job }} draw {{ usual }} W at the same utilisation')
AS
WITH drawn AS (
  SELECT host, gpu_uuid, job, avg(power_watts) AS power, avg(utilization_ratio) AS utilization
  FROM gpu
  WHERE job IS NOT NULL
  GROUP BY host, gpu_uuid, job),
middle AS (
  SELECT job, median(power) AS power, median(utilization) AS utilization, count(*) AS gpus
  FROM drawn
  GROUP BY job),
spread AS (
  SELECT m.job, median(abs(d.power - m.power)) AS deviation
  FROM drawn d JOIN middle m ON m.job = d.job
  GROUP BY m.job)
SELECT d.host, d.gpu_uuid, d.job, round(d.power) AS power, round(m.power) AS usual, m.gpus
FROM drawn d JOIN middle m ON m.job = d.job JOIN spread s ON s.job = d.job
WHERE m.gpus >= 8 AND m.utilization > 0.5 AND abs(d.utilization - m.utilization) < 0.1
  AND abs(d.power - m.power) > greatest(
        setting('gpu_power_outlier_deviations') * s.deviation,
        setting('gpu_power_outlier_ratio') * m.power);
