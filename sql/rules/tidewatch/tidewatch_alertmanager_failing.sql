-- An Alertmanager that is to get every alert does not take them: nobody is told of what begins now, and after four minutes it takes for over what
-- it knows. Tidewatch tries again each second.
CREATE ALERT tidewatch_alertmanager_failing
WITH (severity = 'critical', "label.class" = 'tidewatch', keep_firing_for = '2 minutes', no_data = 'resolve',
      summary = 'an Alertmanager does not take alerts: {{ failures }} requests failed within a minute')
AS
SELECT labels['part'] AS part, increase(value) AS failures
FROM HOP(metrics, ts, INTERVAL '10 seconds', INTERVAL '1 minute')
WHERE name = 'tidewatch_alertmanager_failures_total'
GROUP BY window_start, window_end, labels['part']
HAVING increase(value) > 2;
