-- The GPUs of a job compute less than a fifth of what they usually do, for ten minutes: the job waits for something (data, a lock, a slow peer) and does
-- not know. Source: the article that this project began with; a fifth is from there. Usual is the median of up to 24 hours, at least one, and a job that
-- never used its GPUs much is left alone, and so is a job on one GPU, which is mostly a notebook whose owner thinks. A checkpoint of a minute or two does
-- not move the mean of ten. Slurm's jobs only (gpu.job).
-- The stream: each minute the mean utilisation of a job's GPUs over the ten minutes before.
CREATE STREAM train_util_collapse_mean AS
SELECT job, avg(utilization_ratio) AS utilization, count(DISTINCT gpu_uuid) AS gpus
FROM HOP(gpu, ts, INTERVAL '1 minute', INTERVAL '10 minutes')
WHERE job IS NOT NULL
GROUP BY window_start, window_end, job;

CREATE ALERT train_util_collapse
WITH (severity = 'warning', "label.class" = 'performance', for = '5 minutes', no_data = 'resolve',
      summary = 'the {{ gpus }} GPUs of job {{ job }} are used {{ now | round(2) }}, usually {{ usual | round(2) }}')
AS
SELECT job, last(utilization) AS now, approx_percentile(utilization, 0.5) AS usual, last(gpus) AS gpus
FROM HOP(train_util_collapse_mean, ts, INTERVAL '1 minute', INTERVAL '24 hours')
GROUP BY window_start, window_end, job
HAVING ratio(last(utilization), approx_percentile(utilization, 0.5)) < setting('train_util_collapse_ratio')
   AND last(gpus) >= setting('train_util_collapse_gpus')
   AND approx_percentile(utilization, 0.5) > 0.2 AND count(*) >= 60 AND max(ts) >= window_end - INTERVAL '2 minutes';
