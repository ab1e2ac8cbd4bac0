-- More requests wait than are computed, and the queue has grown for ten minutes: more comes in than goes out, and latency follows. A queue that is
-- long and steady, or that a burst left and that gets shorter, is none. Over all replicas of a service. Source: vLLM's advice on
-- num_requests_waiting; that it must grow by a tenth of itself in five minutes, and two a replica, are ours.
CREATE ALERT serve_queue_growing
WITH (severity = 'warning', "label.class" = 'performance', for = '5 minutes',
      summary = 'service {{ service }}: {{ waiting | round(1) }} requests wait on each replica, {{ running | round(1) }} are computed, and the queue grows by {{ growth | round(1) }} in five minutes')
AS
SELECT service, avg(CAST(requests_waiting AS DOUBLE)) AS waiting, avg(CAST(requests_running AS DOUBLE)) AS running,
       300 * regr_slope(requests_waiting, extract(epoch FROM ts)) AS growth
FROM HOP(serve, ts, INTERVAL '10 seconds', INTERVAL '5 minutes')
GROUP BY window_start, window_end, service
HAVING 300 * regr_slope(requests_waiting, extract(epoch FROM ts)) > setting('serve_queue_growing_share') * avg(CAST(requests_waiting AS DOUBLE))
   AND avg(CAST(requests_waiting AS DOUBLE)) > avg(CAST(requests_running AS DOUBLE))
   AND avg(CAST(requests_waiting AS DOUBLE)) > setting('serve_queue_growing_requests');
