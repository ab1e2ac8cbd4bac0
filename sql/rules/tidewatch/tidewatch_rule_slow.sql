-- A rule whose plan is run at each slide takes more than half of its budget: with some more rows it fails, and rests.
CREATE ALERT tidewatch_rule_slow
WITH (severity = 'warning', "label.class" = 'tidewatch', for = '2 minutes', recover_when = 'share < 0.3',
      no_data = 'resolve',
      summary = 'rule {{ rule }} takes {{ share }} of its budget: with more rows it will fail; tidewatch explain shows why')
AS
SELECT labels['rule'] AS rule, labels['part'] AS part, min(value) AS share
FROM HOP(metrics, ts, INTERVAL '10 seconds', INTERVAL '2 minutes')
WHERE name = 'tidewatch_rule_budget_ratio'
GROUP BY window_start, window_end, labels['rule'], labels['part']
HAVING min(value) > 0.5;
