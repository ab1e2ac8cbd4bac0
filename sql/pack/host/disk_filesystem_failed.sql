-- The kernel took a file system out of service: it remounted it read-only, or shut it down (XFS). Nothing is written from here
-- on. disk_read_only looks at the mounts; this hears of those that don't say `ro` there: XFS after a shutdown never does, and
-- ext4 of new kernels (6.15) sets a flag of its own instead, emergency_ro. Source: node problem detector, gpud.
CREATE ALERT disk_filesystem_failed
WITH (severity = 'critical', "label.class" = 'hardware',
      key = 'host, device',
      keep_firing_for = '1 hour',
      summary = 'the kernel of {{ host }} took the file system on {{ device }} out of service: {{ message }}')
AS
SELECT host, device, kind, message
FROM kernel_event
WHERE kind = 'filesystem_read_only';
