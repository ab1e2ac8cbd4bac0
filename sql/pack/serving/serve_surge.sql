-- A service gets more than three times the requests of the hour before, and four standard deviations more: a launch, an attack, a client that retries.
-- Ten times is a warning: who looks now may still add replicas. Source: the article that this project began with; the hour as measure,
-- three times and at least one request a second are ours, since a morning is no surge. The same hour of the last seven days, as the catalogue
-- wants it, is more than the 24 hours that a window may have.
-- The stream: requests of a replica by minute. Its windows of 70 seconds meet where rows come every ten.
CREATE STREAM serve_surge_minute AS
SELECT service, replica, increase(requests_total) AS requests
FROM HOP(serve, ts, INTERVAL '1 minute', INTERVAL '70 seconds')
GROUP BY window_start, window_end, service, replica;

CREATE ALERT serve_surge
WITH (severity = 'info', "label.class" = 'performance', keep_firing_for = '5 minutes',
      summary = 'service {{ service }} gets {{ now | round(0) | int }} requests a minute, in the hour before it got {{ usual | round(0) | int }}')
AS
WITH minutes AS (
  SELECT window_start, window_end, service, ts, CAST(sum(requests) AS DOUBLE) AS requests
  FROM HOP(serve_surge_minute, ts, INTERVAL '1 minute', INTERVAL '65 minutes')
  GROUP BY window_start, window_end, service, ts
), means AS (
  SELECT service, avg(requests) FILTER (WHERE ts >= window_end - INTERVAL '5 minutes') AS now,
         avg(requests) FILTER (WHERE ts < window_end - INTERVAL '5 minutes') AS usual,
         stddev(requests) FILTER (WHERE ts < window_end - INTERVAL '5 minutes') AS deviation,
         count(*) FILTER (WHERE ts < window_end - INTERVAL '5 minutes') AS minutes
  FROM minutes
  GROUP BY window_start, window_end, service
)
SELECT service, now, usual, CASE WHEN now > 10 * usual THEN 'warning' ELSE 'info' END AS severity
FROM means
WHERE minutes >= 30 AND now > usual + 4 * deviation
  AND now > setting('serve_surge_times') * usual
  AND now >= setting('serve_surge_requests');
