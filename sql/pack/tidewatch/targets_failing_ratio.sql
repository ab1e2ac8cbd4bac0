-- The same collector fails on more than a tenth of the machines, three at least: a new driver, a new image, a permission. One
-- machine alone is collector_failing's. Threshold: kube-prometheus (TargetDown, 10 % for ten minutes).
CREATE ALERT targets_failing_ratio
WITH (severity = 'warning', "label.class" = 'tidewatch',
      for = '10 minutes',
      summary = 'collector {{ collector }} fails on {{ failing }} of {{ hosts }} machines')
AS
SELECT collector, count(DISTINCT CASE WHEN NOT ok THEN host END) AS failing, count(DISTINCT host) AS hosts
FROM HOP(collector, ts, INTERVAL '10 seconds', INTERVAL '1 minute')
GROUP BY window_start, window_end, collector
HAVING failing >= 3
   AND ratio(failing, hosts) > setting('targets_failing_ratio_share');
