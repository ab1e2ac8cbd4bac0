-- A collector that had rows has none for five minutes, and the agent says so while it is alive: what it watches is not watched.
-- collector_failing needs the collector to say that it failed; this one needs nothing from it. Tables of events and of
-- processes on a GPU are left out: no rows are good news there. Threshold: nvidia_gpu_exporter (300 s).
CREATE ALERT collector_stale
WITH (severity = 'warning', "label.class" = 'tidewatch',
      summary = 'collector {{ collector }} on {{ host }} has had no row for {{ stalled }}')
AS
SELECT host, collector, rows_total, stalled
FROM STALLED(collector, ts, rows_total)
WHERE rows_total > 0
  AND collector NOT IN ('gpu_event', 'kernel_event', 'job_event', 'log', 'gpu_process')
  AND stalled_seconds > setting('collector_stale_seconds')
  AND silence_seconds < 60;
