-- The driver reports a fault that needs a reset, a reboot or a new GPU. The application's own faults (13, 31, 43, 45) are not among them.
-- Which codes: those that the table xid_catalog calls critical; a file of your own may say otherwise.
CREATE ALERT gpu_xid_critical
WITH (severity = 'critical', "label.class" = 'hardware',
      keep_firing_for = '10 minutes',
      summary = 'GPU {{ gpu_uuid }} on {{ host }}: XID {{ code }}, {{ name }}: {{ action }}')
AS
SELECT e.host, e.gpu_uuid, e.code, x.name, x.action, e.message
FROM gpu_event e
JOIN xid_catalog x ON x.code = e.code
WHERE e.kind = 'xid' AND x.severity = 'critical';
