-- p99 temperature per host and hour
SELECT host, date_trunc('hour', ts) AS hour, round(percentile_cont(0.99) WITHIN GROUP (ORDER BY temperature_celsius), 3) AS p99
FROM gpu GROUP BY host, hour ORDER BY host, hour

-- ten hottest GPUs of the day
SELECT gpu_uuid, max(temperature_celsius) AS hottest
FROM gpu WHERE ts >= (SELECT date_trunc('day', max(ts)) FROM gpu) AND temperature_celsius IS NOT NULL
GROUP BY gpu_uuid ORDER BY hottest DESC, gpu_uuid LIMIT 10

-- one GPU, one hour
SELECT gpu_uuid, count(*) AS samples, round(avg(power_watts), 3) AS power
FROM gpu WHERE gpu_uuid = (SELECT min(gpu_uuid) FROM gpu) AND ts >= (SELECT date_trunc('hour', max(ts)) FROM gpu)
GROUP BY gpu_uuid

-- power against utilisation per GPU
SELECT gpu_uuid, round(corr(power_watts, utilization_ratio), 3) AS correlation
FROM gpu GROUP BY gpu_uuid
HAVING min(power_watts) < max(power_watts) AND min(utilization_ratio) < max(utilization_ratio) ORDER BY gpu_uuid

-- hourly rollup of the fleet
SELECT host, date_trunc('hour', ts) AS hour, round(avg(power_watts), 3) AS power, max(temperature_celsius) AS hottest
FROM gpu GROUP BY host, hour ORDER BY host, hour
