-- The kernel could not read or write a block device, or found a file system damaged, three times within ten minutes: the disk
-- is failing. One line can be a device that somebody pulled out. Source: node problem detector, gpud; the count is ours.
CREATE ALERT disk_io_errors
WITH (severity = 'warning', "label.class" = 'hardware',
      summary = '{{ device }} on {{ host }}: {{ errors }} I/O errors in ten minutes, such as: {{ message }}')
AS
SELECT host, device, count(*) AS errors, max(message) AS message
FROM HOP(kernel_event, ts, INTERVAL '10 seconds', INTERVAL '10 minutes')
WHERE kind IN ('io_error', 'filesystem_error')
GROUP BY window_start, window_end, host, device
HAVING count(*) >= setting('disk_io_errors_count');
