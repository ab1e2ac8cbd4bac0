-- A disk of a software RAID failed: the array goes on without it, and the next one takes the data along. Replace it in the
-- morning, hence a warning. Source: gpud (md/raid: Disk failure).
CREATE ALERT disk_raid_degraded
WITH (severity = 'warning', "label.class" = 'hardware',
      key = 'host, device',
      keep_firing_for = '1 hour',
      summary = 'RAID on {{ host }} lost {{ device }}: {{ message }}')
AS
SELECT host, device, kind, message
FROM kernel_event
WHERE kind = 'md_failure';
