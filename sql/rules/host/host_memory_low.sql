-- Less than a tenth of the memory can be had without swapping; the OOM killer is next.
-- Threshold: awesome-prometheus-alerts (10 %).
CREATE ALERT host_memory_low
WITH (severity = 'warning', "label.class" = 'service',
      for = '1 minute',
      summary = '{{ host }} has {{ available }} of its memory left')
AS
SELECT host, min(ratio(memory_available_bytes, memory_total_bytes)) AS available
FROM HOP(host, ts, INTERVAL '10 seconds', INTERVAL '1 minute')
GROUP BY window_start, window_end, host
HAVING max(ratio(memory_available_bytes, memory_total_bytes)) < 0.10;
