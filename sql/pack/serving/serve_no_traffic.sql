-- No request of a service has ended for ten minutes, though there were some in the hour before and at this hour yesterday: a gateway, a DNS name or an
-- engine is broken, and nobody complains through it. Where the replicas say nothing at all it is the same. Over when a request has ended.
-- Thresholds: ours; a hundred requests an hour make ten minutes without one no chance, and yesterday tells a client that ran once from one that
-- is missed. Batches that run at no fixed hour, and services younger than a day, are not judged.
-- The stream: requests of a replica by five minutes.
CREATE STREAM serve_no_traffic_minutes AS
SELECT service, replica, increase(requests_total) AS requests
FROM HOP(serve, ts, INTERVAL '5 minutes', INTERVAL '310 seconds')
GROUP BY window_start, window_end, service, replica;

CREATE ALERT serve_no_traffic
WITH (severity = 'critical', "label.class" = 'service', recover_when = 'recent > 0',
      summary = 'no request of service {{ service }} has ended for ten minutes; in the hour before there were {{ before }}, yesterday at this hour {{ yesterday }}')
AS
SELECT service, coalesce(sum(requests) FILTER (WHERE ts >= window_end - INTERVAL '10 minutes'), 0) AS recent,
       sum(requests) FILTER (WHERE ts >= window_end - INTERVAL '70 minutes') AS before,
       sum(requests) FILTER (WHERE ts < window_start + INTERVAL '1 hour') AS yesterday
FROM HOP(serve_no_traffic_minutes, ts, INTERVAL '5 minutes', INTERVAL '24 hours')
GROUP BY window_start, window_end, service
HAVING coalesce(sum(requests) FILTER (WHERE ts >= window_end - INTERVAL '10 minutes'), 0) = 0
   AND sum(requests) FILTER (WHERE ts >= window_end - INTERVAL '70 minutes') >= setting('serve_no_traffic_requests')
   AND sum(requests) FILTER (WHERE ts < window_start + INTERVAL '1 hour') >= setting('serve_no_traffic_yesterday');
