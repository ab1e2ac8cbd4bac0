-- The GPU does not answer any more (fallen off the bus, or a reset is required). Source: gpud, NVSentinel.
CREATE ALERT gpu_lost
WITH (severity = 'critical', "label.class" = 'hardware',
      keep_firing_for = '10 minutes',
      summary = 'GPU {{ gpu_uuid }} on {{ host }} is lost: {{ message }}')
AS
SELECT host, gpu_uuid, kind, message
FROM gpu_event
WHERE kind = 'lost';
