-- The hypervisor gives a tenth of the CPU time to others. Threshold: node-mixin and awesome-prometheus-alerts (10 %).
CREATE ALERT host_cpu_steal
WITH (severity = 'warning', "label.class" = 'performance',
      for = '2 minutes',
      summary = 'the hypervisor takes {{ stolen }} of the CPU time of {{ host }}')
AS
SELECT host, avg(cpu_steal_ratio) AS stolen
FROM HOP(host, ts, INTERVAL '10 seconds', INTERVAL '1 minute')
GROUP BY window_start, window_end, host
HAVING avg(cpu_steal_ratio) > 0.10;
