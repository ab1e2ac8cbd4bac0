-- A memory module gave back something that could not be corrected: data or a process is lost, and the next one may cost the
-- machine. Counted by EDAC, which needs no kernel log; host_machine_check hears of the same from the log. One is enough. Source:
-- node problem detector, awesome-prometheus-alerts.
CREATE ALERT host_memory_uncorrected
WITH (severity = 'critical', "label.class" = 'hardware',
      summary = '{{ errors }} uncorrectable memory errors on {{ host }} in ten minutes: {{ controller }} {{ dimm }} {{ label }}')
AS
SELECT host, controller, dimm, increase(uncorrected_total) AS errors, last(label) AS label
FROM HOP(memory_controller, ts, INTERVAL '10 seconds', INTERVAL '10 minutes')
GROUP BY window_start, window_end, host, controller, dimm
HAVING increase(uncorrected_total) > 0;
