-- A row of the memory is to be replaced by a spare one at the next reset of the GPU. Source: gpud.
CREATE ALERT gpu_row_remap_pending
WITH (severity = 'warning', "label.class" = 'hardware',
      summary = 'GPU {{ gpu_uuid }} on {{ host }} needs a reset to remap a row')
AS
SELECT host, gpu_uuid, bool_or(remap_pending) AS pending
FROM HOP(gpu, ts, INTERVAL '10 seconds', INTERVAL '2 minutes')
GROUP BY window_start, window_end, host, gpu_uuid
HAVING bool_or(remap_pending);
