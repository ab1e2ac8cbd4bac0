-- Pages are to be retired at the next reset (V100, T4 and older; newer GPUs remap rows). Source: DCGM.
CREATE ALERT gpu_pages_retired_pending
WITH (severity = 'warning', "label.class" = 'hardware',
      summary = 'GPU {{ gpu_uuid }} on {{ host }} needs a reset to retire pages')
AS
SELECT host, gpu_uuid, bool_or(retired_pages_pending) AS pending
FROM HOP(gpu, ts, INTERVAL '10 seconds', INTERVAL '2 minutes')
GROUP BY window_start, window_end, host, gpu_uuid
HAVING bool_or(retired_pages_pending);
