-- An application keeps doing something that the GPU refuses (13, 31, 43, 45, 68, 69: five times in ten minutes; once happens),
-- or a contained memory error ended it (94: at once). The job is to be looked at, not the machine.
-- Codes: gpud's and NVIDIA's list of application faults; the count is ours.
CREATE ALERT gpu_xid_application
WITH (severity = 'warning', "label.class" = 'service',
      summary = 'GPU {{ gpu_uuid }} on {{ host }}: XID {{ code }}, {{ times }} times in ten minutes')
AS
SELECT host, gpu_uuid, code, count(*) AS times
FROM HOP(gpu_event, ts, INTERVAL '10 seconds', INTERVAL '10 minutes')
WHERE kind = 'xid' AND code IN (13, 31, 43, 45, 68, 69, 94)
GROUP BY window_start, window_end, host, gpu_uuid, code
HAVING count(*) >= CASE code WHEN 94 THEN 1 ELSE 5 END;
