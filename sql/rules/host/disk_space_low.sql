-- A file system is nearly full: the next checkpoint dies. Thresholds: node-mixin (5 %).
CREATE ALERT disk_space_low
WITH (severity = 'warning', "label.class" = 'service',
      for = '1 minute',
      summary = '{{ mount_point }} on {{ host }} has {{ available }} of its space left')
AS
SELECT host, device, max(mount_point) AS mount_point, max(ratio(available_bytes, size_bytes)) AS available
FROM HOP(disk, ts, INTERVAL '10 seconds', INTERVAL '1 minute')
GROUP BY window_start, window_end, host, device
HAVING max(ratio(available_bytes, size_bytes)) < 0.05;
