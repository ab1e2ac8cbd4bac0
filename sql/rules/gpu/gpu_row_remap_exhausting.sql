-- Most spare rows are used: 512 is DCGM's limit. Plan the replacement.
CREATE ALERT gpu_row_remap_exhausting
WITH (severity = 'warning', "label.class" = 'hardware',
      summary = 'GPU {{ gpu_uuid }} on {{ host }}: {{ rows }} rows remapped after uncorrectable errors')
AS
SELECT host, gpu_uuid, max(remapped_rows_uncorrected) AS rows
FROM HOP(gpu, ts, INTERVAL '10 seconds', INTERVAL '2 minutes')
GROUP BY window_start, window_end, host, gpu_uuid
HAVING max(remapped_rows_uncorrected) >= 512;
