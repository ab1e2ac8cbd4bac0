-- A receiver does not take notices: they are tried again and again, and wait. After 15 minutes they are given up, which
-- tidewatch_notice_failed tells; this is the time to do something about it. Tries come after 1, 2, 4 .. 60 seconds, so that
-- eight are two minutes of one notice. Ours.
CREATE ALERT tidewatch_notice_retries
WITH (severity = 'warning', "label.class" = 'tidewatch', keep_firing_for = '5 minutes', no_data = 'resolve',
      summary = 'a receiver does not take notices: {{ retries }} tries failed within five minutes')
AS
SELECT labels['part'] AS part, increase(value) AS retries
FROM HOP(metrics, ts, INTERVAL '10 seconds', INTERVAL '5 minutes')
WHERE name = 'tidewatch_notices_total' AND labels['outcome'] = 'retried'
GROUP BY window_start, window_end, labels['part']
HAVING increase(value) >= setting('tidewatch_notice_retries_tries');
