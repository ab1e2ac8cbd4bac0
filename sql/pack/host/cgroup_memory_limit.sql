-- A job, pod or service uses nearly all of the memory that it may, without what its caches could give back: the next allocation
-- has one of its processes killed. Ranks of a training job die one by one like that. memory_bytes is no measure: with caches
-- it is at the limit all the time. The threshold is ours.
CREATE ALERT cgroup_memory_limit
WITH (severity = 'warning', "label.class" = 'service',
      for = '3 minutes',
      summary = '{{ cgroup }} on {{ host }} uses {{ share }} of its memory limit')
AS
SELECT host, cgroup, job, namespace, pod, round(avg(ratio(memory_used_bytes, memory_limit_bytes)), 3) AS share
FROM HOP(cgroup, ts, INTERVAL '10 seconds', INTERVAL '1 minute')
GROUP BY window_start, window_end, host, cgroup, job, namespace, pod
HAVING min(ratio(memory_used_bytes, memory_limit_bytes)) > setting('cgroup_memory_limit_ratio');
