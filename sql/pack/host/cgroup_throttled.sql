-- A job or container is held back by its CPU limit in a quarter of its periods: loaders that wait for CPU starve GPUs. Threshold:
-- kubernetes-mixin (CPUThrottlingHigh, 25 % for a quarter of an hour; info there too); the least number of periods is ours.
CREATE ALERT cgroup_throttled
WITH (severity = 'info', "label.class" = 'performance',
      for = '15 minutes',
      summary = '{{ cgroup }} on {{ host }} is throttled in {{ share }} of its CPU periods')
AS
SELECT host, cgroup, job, namespace, pod,
       round(ratio(increase(throttled_periods_total), increase(cpu_periods_total)), 2) AS share
FROM HOP(cgroup, ts, INTERVAL '30 seconds', INTERVAL '5 minutes')
WHERE job IS NOT NULL OR container IS NOT NULL
GROUP BY window_start, window_end, host, cgroup, job, namespace, pod
HAVING ratio(increase(throttled_periods_total), increase(cpu_periods_total)) > setting('cgroup_throttled_ratio')
   AND increase(cpu_periods_total) >= setting('cgroup_throttled_periods');
