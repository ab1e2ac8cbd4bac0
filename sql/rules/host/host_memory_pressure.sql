-- Tasks stand still for memory more than a tenth of the time: the machine thrashes before anything is killed.
-- Threshold: ours; systemd-oomd and Meta's oomd act on the same figure (PSI full).
CREATE ALERT host_memory_pressure
WITH (severity = 'warning', "label.class" = 'performance',
      for = '1 minute',
      summary = '{{ host }} stalls on memory {{ stalled }} of the time')
AS
SELECT host, avg(psi_memory_full_ratio) AS stalled
FROM HOP(host, ts, INTERVAL '10 seconds', INTERVAL '1 minute')
GROUP BY window_start, window_end, host
HAVING avg(psi_memory_full_ratio) > 0.10;
