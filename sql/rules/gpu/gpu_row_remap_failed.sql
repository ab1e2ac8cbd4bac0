-- A row of the memory could not be replaced by a spare one: a criterion for replacement (RMA). Source: DCGM, gpud.
CREATE ALERT gpu_row_remap_failed
WITH (severity = 'critical', "label.class" = 'hardware',
      summary = 'GPU {{ gpu_uuid }} on {{ host }}: a row could not be remapped')
AS
SELECT host, gpu_uuid, bool_or(remap_failed) AS failed
FROM HOP(gpu, ts, INTERVAL '10 seconds', INTERVAL '2 minutes')
GROUP BY window_start, window_end, host, gpu_uuid
HAVING bool_or(remap_failed);
