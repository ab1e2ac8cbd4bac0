-- More than a tenth of the machines, three at least, have sent nothing for two minutes: a switch, a rack's power, or the way of
-- the rows to us, rather than so many machines. host_silent tells each of them. Machines that are silent for over a day are
-- gone and count no more. Threshold: kube-prometheus (TargetDown, 10 % for ten minutes).
CREATE ALERT targets_down_ratio
WITH (severity = 'warning', "label.class" = 'tidewatch',
      for = '8 minutes',
      summary = '{{ silent }} of {{ hosts }} machines are silent')
AS
SELECT count(*) AS hosts, sum(CASE WHEN silence_seconds > 120 THEN 1 ELSE 0 END) AS silent
FROM LAST_SEEN(host, ts)
WHERE silence_seconds < 86400
HAVING silent >= 3
   AND silent > hosts * setting('targets_down_ratio_share');
