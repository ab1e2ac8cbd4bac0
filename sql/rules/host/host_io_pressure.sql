-- All tasks stand still for I/O more than a third of the time: a checkpoint or a data set on a slow disk holds the job up.
-- Threshold: ours.
CREATE ALERT host_io_pressure
WITH (severity = 'warning', "label.class" = 'performance',
      for = '2 minutes',
      summary = '{{ host }} stalls on I/O {{ stalled }} of the time')
AS
SELECT host, avg(psi_io_full_ratio) AS stalled
FROM HOP(host, ts, INTERVAL '10 seconds', INTERVAL '1 minute')
GROUP BY window_start, window_end, host
HAVING avg(psi_io_full_ratio) > 0.33;
