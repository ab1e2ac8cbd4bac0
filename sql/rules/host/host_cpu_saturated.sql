-- The whole machine has had no idle core for half a minute. Data loaders and NCCL's proxy threads then wait for CPU time and
-- training slows down. Often harmless, hence info. Threshold: ours; node-mixin alerts on idle time likewise.
CREATE ALERT host_cpu_saturated
WITH (severity = 'info', "label.class" = 'performance',
      for = '20 seconds',
      summary = '{{ host }} uses {{ utilization }} of its CPUs')
AS
SELECT host, avg(cpu_utilization_ratio) AS utilization
FROM HOP(host, ts, INTERVAL '5 seconds', INTERVAL '15 seconds')
GROUP BY window_start, window_end, host
HAVING avg(cpu_utilization_ratio) >= 0.95;
