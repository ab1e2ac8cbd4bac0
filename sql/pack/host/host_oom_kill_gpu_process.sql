-- The kernel killed a process for memory that was on a GPU a moment ago: that is a rank of a job or a server, and what it
-- worked with hangs or dies. host_oom_kill counts every victim and wakes nobody. Source: gpud and the node problem detector
-- tell OOM kills; that the victim decides is ours.
CREATE ALERT host_oom_kill_gpu_process
WITH (severity = 'critical', "label.class" = 'service',
      key = 'host, pid',
      every = '10 seconds', over = '2 minutes', keep_firing_for = '10 minutes', no_data = 'resolve',
      summary = 'the kernel of {{ host }} killed {{ process_name }} ({{ pid }}) for memory; it was on {{ gpus }} GPUs, job {{ job }}')
AS
SELECT k.host, k.pid, max(coalesce(k.process_name, p.process_name)) AS process_name,
       count(DISTINCT p.gpu_uuid) AS gpus, coalesce(max(p.job), 'unknown') AS job
FROM kernel_event k
JOIN gpu_process p ON p.host = k.host AND p.pid = k.pid
WHERE k.kind = 'oom_kill'
GROUP BY k.host, k.pid;
