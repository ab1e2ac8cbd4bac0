-- What a GPU measures, without what is noise. A median of eleven rows takes out spikes of up to five, and an edge comes five rows late;
-- hampel leaves everything as it is but the spikes; ewma follows with a half-life of ten seconds over the last minute.
CREATE VIEW gpu_smooth AS
SELECT ts, host, gpu_uuid, mig_uuid, gpu_index, gpu_name, job,
       temperature_celsius, power_watts, utilization_ratio,
       median(temperature_celsius) OVER eleven AS temperature_median_celsius,
       median(power_watts) OVER eleven AS power_median_watts,
       hampel(power_watts, 3) OVER eleven AS power_hampel_watts,
       ewma(temperature_celsius, INTERVAL '10 seconds', ts) OVER minute AS temperature_ewma_celsius,
       ewma(power_watts, INTERVAL '10 seconds', ts) OVER minute AS power_ewma_watts
FROM gpu
WINDOW eleven AS (PARTITION BY host, gpu_uuid, mig_uuid ORDER BY ts ROWS BETWEEN 10 PRECEDING AND CURRENT ROW),
       minute AS (PARTITION BY host, gpu_uuid, mig_uuid ORDER BY ts RANGE BETWEEN INTERVAL '1 minute' PRECEDING AND CURRENT ROW);
