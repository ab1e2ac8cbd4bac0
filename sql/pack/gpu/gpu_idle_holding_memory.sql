-- A GPU has done nothing for half an hour and holds more than half of its memory: a forgotten notebook, or a process that
-- outlived its job. Nobody else can use it. Costs money and wakes nobody, hence info. Thresholds: ours.
CREATE ALERT gpu_idle_holding_memory
WITH (severity = 'info', "label.class" = 'performance',
      for = '28 minutes',
      summary = 'GPU {{ gpu_uuid }} on {{ host }} is idle for half an hour and holds {{ held }} of its memory')
AS
SELECT host, gpu_uuid, round(min(ratio(memory_used_bytes, memory_total_bytes)), 2) AS held,
       max(coalesce(utilization_max_ratio, utilization_ratio)) AS utilization
FROM HOP(gpu, ts, INTERVAL '10 seconds', INTERVAL '2 minutes')
GROUP BY window_start, window_end, host, gpu_uuid
HAVING max(coalesce(utilization_max_ratio, utilization_ratio)) <= setting('gpu_idle_holding_memory_utilization_ratio')
   AND min(ratio(memory_used_bytes, memory_total_bytes)) > setting('gpu_idle_holding_memory_ratio');
