-- The history can't be written: the disk is full, or the store does not answer. Rows wait in the log, which keeps them for hours; alerts go
-- on. It is over when no write failed for five minutes.
CREATE ALERT tidewatch_lake_write_failed
WITH (severity = 'critical', "label.class" = 'tidewatch', keep_firing_for = '5 minutes',
      summary = 'the history can not be written: rows wait in the log, which does not keep them for ever')
AS
SELECT labels['part'] AS part, increase(value) AS failures
FROM HOP(metrics, ts, INTERVAL '10 seconds', INTERVAL '1 minute')
WHERE name = 'tidewatch_lake_failures_total'
GROUP BY window_start, window_end, labels['part']
HAVING increase(value) > 0;
