-- A process has held a GPU for ten minutes outside of every job, pod and container, on a machine whose GPUs are given to jobs or pods: somebody
-- went around the scheduler, or a program runs here that nobody asked for, such as a miner. Daemons (MPS, DCGM) hold less. Source: ours.
CREATE ALERT gpu_process_foreign
WITH (severity = 'warning', "label.class" = 'security', no_data = 'resolve',
      summary = '{{ process_name }} (pid {{ pid }}) holds {{ memory_bytes | humanize1024 }}B on {{ gpus }} GPUs of {{ host }} outside of every job')
AS
SELECT p.host, p.pid, max(p.process_name) AS process_name, max(p.memory_used_bytes) AS memory_bytes, count(DISTINCT p.gpu_uuid) AS gpus
FROM HOP(gpu_process, ts, INTERVAL '1 minute', INTERVAL '30 minutes') p
JOIN (
  SELECT window_end, host FROM HOP(gpu_process, ts, INTERVAL '1 minute', INTERVAL '30 minutes')
  WHERE job IS NOT NULL OR pod IS NOT NULL
  GROUP BY window_end, host
) scheduled ON scheduled.host = p.host
WHERE p.job IS NULL AND p.pod IS NULL AND p.container IS NULL AND p.memory_used_bytes >= setting('gpu_process_foreign_bytes')
GROUP BY p.window_start, p.window_end, p.host, p.pid
-- And it is still there.
HAVING extract(epoch FROM max(p.ts)) - extract(epoch FROM min(p.ts)) >= setting('gpu_process_foreign_seconds')
   AND max(p.ts) > p.window_end - INTERVAL '2 minutes';
