-- The NVLinks of a GPU repeat or recover, or see a hundred CRC errors a second: DCGM's limits. Collectives slow down first.
CREATE ALERT gpu_nvlink_errors
WITH (severity = 'warning', "label.class" = 'hardware',
      for = '1 minute',
      summary = 'GPU {{ gpu_uuid }} on {{ host }}: {{ replays }} NVLink replays, {{ recoveries }} recoveries, {{ crc_errors }} CRC errors in a minute')
AS
SELECT host, gpu_uuid, increase(nvlink_replays_total) AS replays,
       increase(nvlink_recoveries_total) AS recoveries, increase(nvlink_crc_errors_total) AS crc_errors
FROM HOP(gpu, ts, INTERVAL '10 seconds', INTERVAL '1 minute')
GROUP BY window_start, window_end, host, gpu_uuid
HAVING increase(nvlink_replays_total) >= 1 OR increase(nvlink_recoveries_total) >= 1 OR increase(nvlink_crc_errors_total) >= 6000;
