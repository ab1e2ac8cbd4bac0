-- A machine has fewer GPUs than the table `expected` says, also when one was never there since the boot: nothing vanishes then.
-- A GPU that vanishes while we look is told at once by gpu_missing, whose alert holds ten minutes; this one takes over after
-- them and stays. A machine of which the driver answers for no GPU, and whose collector is not well, is collector_failing's and
-- gpu_lost's. Source: gpud, nvidia_gpu_exporter (2 to 10 minutes).
CREATE ALERT gpu_count_low
WITH (severity = 'critical', "label.class" = 'hardware',
      every = '30 seconds', over = '1 minute', for = '10 minutes',
      summary = '{{ host }} has {{ found }} of {{ gpus }} GPUs')
AS
WITH seen AS (SELECT host, count(DISTINCT gpu_uuid) AS found FROM gpu GROUP BY host),
well AS (SELECT host FROM collector WHERE collector = 'gpu' GROUP BY host HAVING bool_or(ok))
SELECT e.host, e.gpus, coalesce(s.found, 0) AS found
FROM expected e
LEFT JOIN seen s ON s.host = e.host
LEFT JOIN well w ON w.host = e.host
WHERE coalesce(s.found, 0) < e.gpus AND (s.host IS NOT NULL OR w.host IS NOT NULL);
