-- A call into the driver does not return. Whatever asks this GPU next hangs too; such a driver mostly needs a reboot.
-- Source: NVSentinel #1748, where the monitor was killed by the hang that it should have reported.
CREATE ALERT gpu_stuck
WITH (severity = 'critical', "label.class" = 'hardware',
      keep_firing_for = '10 minutes',
      summary = 'GPU {{ gpu_uuid }} on {{ host }}: the driver hangs: {{ message }}')
AS
SELECT host, gpu_uuid, kind, message
FROM gpu_event
WHERE kind = 'stuck';
