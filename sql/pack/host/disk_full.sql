-- A file system is full but for three percent, and for less than 100 GB: the next checkpoint dies, and the job with it. Three
-- percent of a large array are terabytes, hence both, and a full /boot is no reason to get up. disk_space_low warns before.
-- Threshold: node-mixin (3 %); the bytes are ours.
CREATE ALERT disk_full
WITH (severity = 'critical', "label.class" = 'service',
      for = '1 minute',
      summary = '{{ mount_point }} ({{ device }}) on {{ host }} has {{ gigabytes }} GB left, {{ available }} of its space')
AS
SELECT host, device, max(mount_point) AS mount_point,
       round(max(available_bytes) / 1e9, 1) AS gigabytes, round(max(ratio(available_bytes, size_bytes)), 3) AS available
FROM HOP(disk, ts, INTERVAL '10 seconds', INTERVAL '1 minute')
GROUP BY window_start, window_end, host, device
HAVING max(ratio(available_bytes, size_bytes)) < setting('disk_full_ratio')
   AND max(available_bytes) < setting('disk_full_bytes')
   AND max(size_bytes) >= setting('disk_full_size_bytes')
   AND NOT bool_or(read_only);
