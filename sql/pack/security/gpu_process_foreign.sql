-- A process has held a GPU for ten minutes outside of every job, pod and container, on a machine whose GPUs are given to jobs or pods: somebody
-- went around the scheduler, or a program runs here that nobody asked for, such as a miner. Daemons (MPS, DCGM) hold less. Source: ours.
CREATE ALERT gpu_process_foreign
WITH (severity = 'warning', "label.class" = 'security',
      summary = '{{ process_name }} (pid {{ pid }}) holds {{ memory_bytes | humanize1024 }}B of a GPU on {{ host }} outside of every job; {{ processes }} such processes')
AS
SELECT host,
       max(process_name) FILTER (WHERE job IS NULL AND pod IS NULL AND container IS NULL AND memory_used_bytes >= setting('gpu_process_foreign_bytes')) AS process_name,
       max(pid) FILTER (WHERE job IS NULL AND pod IS NULL AND container IS NULL AND memory_used_bytes >= setting('gpu_process_foreign_bytes')) AS pid,
       max(memory_used_bytes) FILTER (WHERE job IS NULL AND pod IS NULL AND container IS NULL) AS memory_bytes,
       count(DISTINCT pid) FILTER (WHERE job IS NULL AND pod IS NULL AND container IS NULL AND memory_used_bytes >= setting('gpu_process_foreign_bytes')) AS processes
FROM HOP(gpu_process, ts, INTERVAL '1 minute', INTERVAL '30 minutes')
GROUP BY window_start, window_end, host
-- Sixty rows are ten minutes of one process on one GPU; and it is still there.
HAVING count(*) FILTER (WHERE job IS NOT NULL OR pod IS NOT NULL) > 0
   AND count(*) FILTER (WHERE job IS NULL AND pod IS NULL AND container IS NULL AND memory_used_bytes >= setting('gpu_process_foreign_bytes')) >= setting('gpu_process_foreign_rows')
   AND max(ts) FILTER (WHERE job IS NULL AND pod IS NULL AND container IS NULL AND memory_used_bytes >= setting('gpu_process_foreign_bytes')) > window_end - INTERVAL '2 minutes';
