-- A GPU has fewer active NVLinks than it has links: its collectives go over fewer, and the slowest sets the pace.
-- Source: DCGM, Azure's node health checks.
CREATE ALERT gpu_nvlink_down
WITH (severity = 'critical', "label.class" = 'hardware',
      for = '1 minute',
      summary = 'GPU {{ gpu_uuid }} on {{ host }}: {{ active }} of {{ links }} NVLinks are active')
AS
SELECT host, gpu_uuid, min(nvlink_links_active) AS active, max(nvlink_links) AS links
FROM HOP(gpu, ts, INTERVAL '10 seconds', INTERVAL '1 minute')
GROUP BY window_start, window_end, host, gpu_uuid
HAVING min(nvlink_links_active) < max(nvlink_links);
