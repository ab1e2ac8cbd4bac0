-- A GPU that was there is gone from the driver and from the bus: it seldom says so in a number, it disappears.
-- Its counterpart is gpu_lost, where the driver still names the GPU and gets no answer. Source: nvidia_gpu_exporter, gpud.
CREATE ALERT gpu_missing
WITH (severity = 'critical', "label.class" = 'hardware',
      keep_firing_for = '10 minutes',
      summary = 'GPU {{ gpu_uuid }} on {{ host }} has vanished: {{ message }}')
AS
SELECT host, gpu_uuid, kind, message
FROM gpu_event
WHERE kind = 'vanished';
