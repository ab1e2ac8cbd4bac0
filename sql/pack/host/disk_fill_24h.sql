-- A file system fills up: two fifths are left, and as it went on for two hours nothing is left in a day: whoever is awake
-- deletes old checkpoints before it pages. A line must fit (r2): a single large file is a step, and a step is no trend. An hour
-- of rows must be there. Threshold: node-mixin (40 % and 24 hours); its window of six hours is longer than rules look back over
-- samples.
CREATE ALERT disk_fill_24h
WITH (severity = 'warning', "label.class" = 'service',
      for = '1 hour',
      summary = '{{ mount_point }} ({{ device }}) on {{ host }} has {{ gigabytes }} GB left and loses {{ gigabytes_per_hour }} GB an hour: full within 24 hours')
AS
SELECT host, device, max(mount_point) AS mount_point, round(last(available_bytes) / 1e9, 1) AS gigabytes,
       round(-3600 * regr_slope(available_bytes, extract(epoch FROM ts)) / 1e9, 1) AS gigabytes_per_hour
FROM HOP(disk, ts, INTERVAL '1 minute', INTERVAL '2 hours')
GROUP BY window_start, window_end, host, device
HAVING last(ratio(available_bytes, size_bytes)) < setting('disk_fill_24h_ratio')
   AND last(available_bytes) + 3600 * setting('disk_fill_24h_hours') * regr_slope(available_bytes, extract(epoch FROM ts)) < 0
   AND regr_r2(available_bytes, extract(epoch FROM ts)) > 0.8
   AND max(extract(epoch FROM ts)) - min(extract(epoch FROM ts)) >= 3600
   AND max(size_bytes) >= setting('disk_fill_24h_size_bytes');
