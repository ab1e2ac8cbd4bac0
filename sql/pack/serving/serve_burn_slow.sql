-- A service uses up its error budget three times as fast as it may: over a day, and still over the last two hours. Nobody need get up for it; left
-- alone the month's budget is gone in ten days. Source: Google's SRE workbook and the kubernetes-mixin; the objective of 99 % too. Ten errors at least
-- (ours). Their slowest pair, once over three days and six hours, wants more than the 24 hours that a window may have.
-- The stream: requests and errors of a replica by five minutes.
CREATE STREAM serve_burn_slow_minutes AS
SELECT service, replica, increase(requests_total) AS requests, increase(errors_total) AS errors
FROM TUMBLE(serve, ts, INTERVAL '5 minutes')
GROUP BY window_start, window_end, service, replica;

CREATE ALERT serve_burn_slow
WITH (severity = 'warning', "label.class" = 'service',
      summary = 'service {{ service }} fails {{ day | round(4) }} of the requests of a day and {{ two_hours | round(4) }} of the last two hours')
AS
WITH shares AS (
  SELECT service, ratio(sum(errors), sum(requests)) AS day,
         ratio(sum(errors) FILTER (WHERE ts >= window_end - INTERVAL '2 hours'), sum(requests) FILTER (WHERE ts >= window_end - INTERVAL '2 hours')) AS two_hours,
         sum(errors) AS errors,
         1 - setting('serve_burn_slow_objective') AS budget
  FROM HOP(serve_burn_slow_minutes, ts, INTERVAL '10 minutes', INTERVAL '24 hours')
  GROUP BY window_start, window_end, service
)
SELECT service, day, two_hours
FROM shares
WHERE day > 3 * budget AND two_hours > 3 * budget AND errors >= setting('serve_burn_slow_errors');
