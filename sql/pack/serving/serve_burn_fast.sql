-- A service uses up its error budget so fast that the month's is gone within two days (14.4 times, over an hour and still over the last five
-- minutes) or within five (6 times, over six hours and the last half). Two windows each: the long one wants enough to matter, the short one ends
-- the alert soon after the errors end. Source: Google's SRE workbook and the kubernetes-mixin; its objective of 99 % too. Ten errors at least
-- (ours): at night one failed request may be a tenth of the traffic.
-- The stream: requests and errors of a replica by minute. Its windows of 70 seconds meet where rows come every ten.
CREATE STREAM serve_burn_fast_minute AS
SELECT service, replica, increase(requests_total) AS requests, increase(errors_total) AS errors
FROM HOP(serve, ts, INTERVAL '1 minute', INTERVAL '70 seconds')
GROUP BY window_start, window_end, service, replica;

CREATE ALERT serve_burn_fast
WITH (severity = 'critical', "label.class" = 'service',
      summary = 'service {{ service }} fails {{ hour | round(4) }} of the requests of an hour ({{ five_minutes | round(4) }} of the last five minutes) and {{ six_hours | round(4) }} of six hours')
AS
WITH shares AS (
  SELECT service,
         ratio(sum(errors) FILTER (WHERE ts >= window_end - INTERVAL '5 minutes'), sum(requests) FILTER (WHERE ts >= window_end - INTERVAL '5 minutes')) AS five_minutes,
         ratio(sum(errors) FILTER (WHERE ts >= window_end - INTERVAL '30 minutes'), sum(requests) FILTER (WHERE ts >= window_end - INTERVAL '30 minutes')) AS half_hour,
         ratio(sum(errors) FILTER (WHERE ts >= window_end - INTERVAL '1 hour'), sum(requests) FILTER (WHERE ts >= window_end - INTERVAL '1 hour')) AS hour,
         ratio(sum(errors), sum(requests)) AS six_hours,
         sum(errors) FILTER (WHERE ts >= window_end - INTERVAL '1 hour') AS errors_of_hour, sum(errors) AS errors_of_six_hours,
         1 - setting('serve_burn_fast_objective') AS budget,
         setting('serve_burn_fast_errors') AS least
  FROM HOP(serve_burn_fast_minute, ts, INTERVAL '1 minute', INTERVAL '6 hours')
  GROUP BY window_start, window_end, service
)
SELECT service, hour, five_minutes, six_hours, half_hour
FROM shares
WHERE (hour > 14.4 * budget AND five_minutes > 14.4 * budget AND errors_of_hour >= least)
   OR (six_hours > 6 * budget AND half_hour > 6 * budget AND errors_of_six_hours >= least);
