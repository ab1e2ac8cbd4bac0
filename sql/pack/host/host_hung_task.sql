-- The kernel says twice within ten minutes that a task does not come back from a call (D state for over two minutes): storage
-- or a driver hangs. Where it is NVIDIA's driver the machine mostly needs a reboot, and everything that asks a GPU hangs next:
-- that pages. Once is a slow NFS server. Source: gpud (processes named nvidia.. in D state for six minutes), node problem
-- detector (TaskHung).
CREATE ALERT host_hung_task
WITH (severity = 'warning', "label.class" = 'hardware',
      summary = '{{ process_name }} on {{ host }} hangs in the kernel, said {{ times }} times in ten minutes: {{ message }}')
AS
SELECT host, process_name, count(*) AS times, max(message) AS message,
       CASE WHEN process_name ~ '^(nvidia|nv_|nv-|UVM|irq/[0-9]+-nvidia)' THEN 'critical' ELSE 'warning' END AS severity
FROM HOP(kernel_event, ts, INTERVAL '10 seconds', INTERVAL '10 minutes')
WHERE kind = 'hung_task'
GROUP BY window_start, window_end, host, process_name
HAVING count(*) >= setting('host_hung_task_times');
