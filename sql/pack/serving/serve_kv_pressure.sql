-- The KV cache of a replica is full, and requests are thrown out of it: they are computed again from their first token, which fills it anew. A full
-- cache without preemptions is a cache well used. Source: vLLM's advice on preemptions; 0.95 is from there. Fewer sequences (--max-num-seqs), more
-- memory (--gpu-memory-utilization) or more replicas help.
CREATE ALERT serve_kv_pressure
WITH (severity = 'warning', "label.class" = 'performance', for = '2 minutes', no_data = 'resolve',
      summary = 'replica {{ replica }} of {{ service }}: KV cache {{ used | round(2) }} full, {{ preemptions }} preemptions in five minutes')
AS
SELECT service, replica, avg(kv_cache_ratio) AS used, increase(preemptions_total) AS preemptions
FROM HOP(serve, ts, INTERVAL '10 seconds', INTERVAL '5 minutes')
GROUP BY window_start, window_end, service, replica
HAVING avg(kv_cache_ratio) > setting('serve_kv_pressure_ratio')
   AND increase(preemptions_total) > setting('serve_kv_pressure_preemptions');
