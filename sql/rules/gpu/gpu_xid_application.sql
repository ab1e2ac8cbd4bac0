-- The application did something that the GPU refused, or a contained memory error ended it (94). The job is to be looked
-- at, not the machine; 43 and 45 follow other faults. Codes: gpud's and NVIDIA's list of application faults.
CREATE ALERT gpu_xid_application
WITH (severity = 'warning',
      keep_firing_for = '10 minutes',
      summary = 'GPU {{ gpu_uuid }} on {{ host }}: XID {{ code }}, an application fault')
AS
SELECT host, gpu_uuid, code, message
FROM gpu_event
WHERE kind = 'xid' AND code IN (13, 31, 43, 45, 68, 69, 94);
