-- Requests wait at a replica, no token is generated, and no GPU of its machine computes: the engine is deadlocked, or its workers died and the front
-- went on taking requests. Health checks often stay green. Nothing but a restart helps, and whoever is routed there waits. Thresholds: ours; a queue in
-- every row of five minutes, since a single one is the moment between two batches. On a machine with several replicas a busy one hides it.
-- The stream: the minutes in which every GPU of a machine idled.
CREATE STREAM serve_gpu_idle_minute AS
SELECT host, max(utilization_ratio) AS used
FROM TUMBLE(gpu, ts, INTERVAL '1 minute')
GROUP BY window_start, window_end, host
HAVING max(utilization_ratio) < setting('serve_gpu_idle_but_queue_ratio');

CREATE ALERT serve_gpu_idle_but_queue
WITH (severity = 'critical', "label.class" = 'service', for = '1 minute', no_data = 'resolve',
      summary = 'replica {{ replica }} of {{ service }} on {{ host }}: {{ waiting }} requests wait for five minutes, no GPU is used more than {{ used | round(2) }}')
AS
WITH queued AS (
  SELECT window_start, window_end, service, replica, max(host) AS host, min(requests_waiting) AS waiting
  FROM HOP(serve, ts, INTERVAL '1 minute', INTERVAL '5 minutes')
  GROUP BY window_start, window_end, service, replica
  HAVING min(requests_waiting) > 0 AND count(*) >= 10 AND coalesce(increase(generated_tokens_total), 0) = 0
     AND coalesce(increase(requests_total), 0) = 0
), idle AS (
  SELECT host, max(used) AS used
  FROM HOP(serve_gpu_idle_minute, ts, INTERVAL '1 minute', INTERVAL '5 minutes')
  GROUP BY window_start, window_end, host
  HAVING count(*) >= 5
)
SELECT q.service, q.replica, q.host, q.waiting, i.used
FROM queued q JOIN idle i ON i.host = q.host;
