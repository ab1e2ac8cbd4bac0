-- The driver reports a fault that needs a reset, a reboot or a new GPU. The application's own faults (13, 31, 43, 45) are not among them.
-- Codes: the sets that nvidia_gpu_exporter, DCGM and gpud agree on.
CREATE ALERT gpu_xid_critical
WITH (severity = 'critical',
      keep_firing_for = '10 minutes',
      summary = 'GPU {{ gpu_uuid }} on {{ host }}: XID {{ code }}')
AS
SELECT host, gpu_uuid, code, message
FROM gpu_event
WHERE kind = 'xid' AND code IN (46, 48, 62, 63, 64, 74, 79, 95, 109, 110, 119, 120, 136, 140, 143, 155, 156, 158);
