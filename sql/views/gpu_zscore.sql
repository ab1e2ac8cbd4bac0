-- How far a GPU is from those of the same model at the same job, in their standard deviations over the last five minutes. GPUs without a
-- job are compared with each other. NULL where nothing deviates, as with a single GPU at rest.
CREATE VIEW gpu_zscore AS
SELECT ts, host, gpu_uuid, mig_uuid, gpu_index, gpu_name, job,
       temperature_celsius, power_watts, utilization_ratio,
       zscore(temperature_celsius, avg(temperature_celsius) OVER alike, stddev(temperature_celsius) OVER alike) AS temperature_zscore,
       zscore(power_watts, avg(power_watts) OVER alike, stddev(power_watts) OVER alike) AS power_zscore,
       zscore(utilization_ratio, avg(utilization_ratio) OVER alike, stddev(utilization_ratio) OVER alike) AS utilization_zscore,
       count(temperature_celsius) OVER alike AS baseline_rows
FROM gpu
WINDOW alike AS (PARTITION BY gpu_name, job ORDER BY ts RANGE BETWEEN INTERVAL '5 minutes' PRECEDING AND CURRENT ROW);
