-- A CPU did not let go of the kernel for over 20 seconds (soft lockup) or does not even take interrupts (hard lockup). A soft
-- one is told as a warning, since it can be a moment's load in a virtual machine; five within ten minutes, or a hard one, mean
-- that the machine hangs. Source: node problem detector, gpud; the count is ours.
CREATE ALERT host_cpu_lockup
WITH (severity = 'warning', "label.class" = 'hardware',
      summary = 'CPUs of {{ host }} lock up: {{ hard }} hard, {{ soft }} soft in ten minutes; {{ message }}')
AS
SELECT host, count(*) FILTER (WHERE kind = 'hard_lockup') AS hard, count(*) FILTER (WHERE kind = 'soft_lockup') AS soft,
       max(message) AS message,
       CASE WHEN count(*) FILTER (WHERE kind = 'hard_lockup') > 0 OR count(*) >= 5 THEN 'critical' ELSE 'warning' END AS severity
FROM HOP(kernel_event, ts, INTERVAL '10 seconds', INTERVAL '10 minutes')
WHERE kind IN ('soft_lockup', 'hard_lockup')
GROUP BY window_start, window_end, host
HAVING count(*) >= 1;
