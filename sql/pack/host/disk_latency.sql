-- A read or a write takes over 100 milliseconds on average: a disk that dies, or more than it can carry. Data loaders and
-- checkpoints wait for it. At least a hundred operations in two minutes: a disk at rest that wakes up is slow once. Threshold:
-- awesome-prometheus-alerts (100 ms, two minutes); the count is ours.
CREATE ALERT disk_latency
WITH (severity = 'warning', "label.class" = 'performance',
      for = '2 minutes',
      summary = '{{ device }} on {{ host }} takes {{ seconds }} s for an operation, over {{ operations }} of them in two minutes')
AS
SELECT host, device,
       round(ratio(increase(read_seconds_total) + increase(write_seconds_total),
                   increase(reads_total) + increase(writes_total)), 3) AS seconds,
       increase(reads_total) + increase(writes_total) AS operations
FROM HOP(disk, ts, INTERVAL '10 seconds', INTERVAL '2 minutes')
GROUP BY window_start, window_end, host, device
HAVING ratio(increase(read_seconds_total) + increase(write_seconds_total),
             increase(reads_total) + increase(writes_total)) > setting('disk_latency_seconds')
   AND operations >= setting('disk_latency_operations');
