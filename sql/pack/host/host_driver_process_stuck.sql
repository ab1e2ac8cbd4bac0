-- A process of NVIDIA's (nvidia-smi, nvidia-persistenced) is in uninterruptible sleep for six minutes: the driver is wedged,
-- the process can't be killed, and the machine mostly needs a reboot. Seen also where the kernel does not watch for hung tasks,
-- but only while the process is among the 50 largest of its machine. Source: gpud (name ^nvidia, D state, six minutes).
CREATE ALERT host_driver_process_stuck
WITH (severity = 'critical', "label.class" = 'hardware',
      for = '4 minutes', no_data = 'resolve',
      summary = '{{ name }} ({{ pid }}) on {{ host }} hangs in the driver for six minutes')
AS
SELECT host, pid, max(name) AS name, count(*) AS samples
FROM HOP(process, ts, INTERVAL '10 seconds', INTERVAL '2 minutes')
WHERE name LIKE 'nvidia%'
GROUP BY window_start, window_end, host, pid
HAVING bool_and(state = 'disk-sleep') AND count(*) >= 6;
