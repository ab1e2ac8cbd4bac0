-- A file system that holds data became read-only: mostly the kernel's answer to a failing disk. Source: node problem detector.
-- Mounts that are meant to be so (snaps, CD images) are not collected.
CREATE ALERT disk_read_only
WITH (severity = 'critical', "label.class" = 'hardware',
      summary = '{{ mount_point }} ({{ device }}) on {{ host }} is read-only')
AS
SELECT host, device, mount_point
FROM disk
WHERE read_only AND filesystem IN ('ext4', 'xfs', 'btrfs', 'ext3', 'ext2', 'f2fs', 'zfs');
