-- The kernel killed a process of a job, pod or service for memory: which one, host_oom_kill can't say. A rank that is killed takes
-- its whole job along, or leaves it hanging. Of a pod its own group speaks, which outlives the container that died. Any is told,
-- but where the job's group is gone before the next look at it, ten seconds later: then host_oom_kill alone speaks.
CREATE ALERT cgroup_oom_kill
WITH (severity = 'warning', "label.class" = 'service',
      summary = '{{ kills }} processes of {{ cgroup }} on {{ host }} were killed for memory')
AS
SELECT host, cgroup, job, namespace, pod, increase(oom_kills_total) AS kills
FROM HOP(cgroup, ts, INTERVAL '10 seconds', INTERVAL '5 minutes')
WHERE coalesce(job, pod, container, unit) IS NOT NULL AND (pod IS NULL OR container IS NULL)
GROUP BY window_start, window_end, host, cgroup, job, namespace, pod
HAVING increase(oom_kills_total) > 0;
