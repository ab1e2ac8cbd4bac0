-- The CPU or the memory controller reports errors. One that could not be corrected has cost data or a process, and the next one
-- may cost the machine: that pages. Corrected ones are told when ten come within ten minutes: a DIMM wears out. Machine checks
-- and EDAC tell of the same error, hence one rule for both. Source: node problem detector, gpud; the count is ours.
CREATE ALERT host_machine_check
WITH (severity = 'warning', "label.class" = 'hardware',
      summary = 'hardware errors on {{ host }} in ten minutes: {{ uncorrected }} uncorrected, {{ lines }} in all; {{ message }}')
AS
SELECT host, count(*) AS lines, max(message) AS message,
       count(*) FILTER (WHERE message ~ '[Uu]ncorrect|[Ff]atal|[Uu]nrecover|severity: recoverable|Machine Check Exception|[0-9] UE ') AS uncorrected,
       CASE WHEN count(*) FILTER (WHERE message ~ '[Uu]ncorrect|[Ff]atal|[Uu]nrecover|severity: recoverable|Machine Check Exception|[0-9] UE ') > 0
            THEN 'critical' ELSE 'warning' END AS severity
FROM HOP(kernel_event, ts, INTERVAL '10 seconds', INTERVAL '10 minutes')
WHERE kind IN ('machine_check', 'memory_error')
GROUP BY window_start, window_end, host
HAVING uncorrected > 0
    OR count(*) >= setting('host_machine_check_corrected');
