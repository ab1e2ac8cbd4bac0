-- A rule could not be evaluated: its alerts stay as they are, and nobody would hear of new ones. Tidewatch watches itself here.
-- One failure is told; it is over when none came for five minutes.
CREATE ALERT tidewatch_rule_failing
WITH (severity = 'warning', "label.class" = 'tidewatch', keep_firing_for = '5 minutes', no_data = 'resolve',
      summary = 'rule {{ rule }} can not be evaluated: its alerts stay as they are')
AS
SELECT labels['rule'] AS rule, labels['part'] AS part, increase(value) AS failures
FROM HOP(metrics, ts, INTERVAL '10 seconds', INTERVAL '1 minute')
WHERE name = 'tidewatch_rule_failures_total'
GROUP BY window_start, window_end, labels['rule'], labels['part']
HAVING increase(value) > 0;
