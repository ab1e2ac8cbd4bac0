-- A machine was started within the last ten minutes and no row of the table `maintenance` says that somebody works on it: a
-- panic, a power failure, or a watchdog. Its jobs are gone. By the uptime and not by a change of boot_id, so that it is seen
-- after an hour of darkness too, and after our own start; a new machine is told once. Source: gpud.
CREATE ALERT host_reboot_unexpected
WITH (severity = 'warning', "label.class" = 'hardware', no_data = 'resolve',
      summary = '{{ host }} was started {{ uptime_seconds }} s ago, and no maintenance says why')
AS
SELECT h.host, round(h.uptime_seconds) AS uptime_seconds, h.boot_id
FROM host h
LEFT JOIN maintenance m ON m.host = h.host AND h.ts BETWEEN m.from_ts AND m.to_ts
WHERE h.uptime_seconds < setting('host_reboot_unexpected_seconds') AND m.host IS NULL;
