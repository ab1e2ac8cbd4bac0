-- A notice was given up: somebody should have been told of an alert and was not. `SELECT * FROM notice_event WHERE outcome = 'gave_up'` says who,
-- and why. Give this rule a receiver of its own: the one that failed may not hear of it.
CREATE ALERT tidewatch_notice_failed
WITH (severity = 'critical', "label.class" = 'tidewatch', keep_firing_for = '10 minutes',
      summary = '{{ notices }} notices were given up: somebody was not told')
AS
SELECT labels['part'] AS part, increase(value) AS notices
FROM HOP(metrics, ts, INTERVAL '10 seconds', INTERVAL '1 minute')
WHERE name = 'tidewatch_notices_total' AND labels['outcome'] = 'gave_up'
GROUP BY window_start, window_end, labels['part']
HAVING increase(value) > 0;
