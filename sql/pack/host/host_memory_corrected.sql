-- A memory module was corrected a hundred times within an hour: nothing is lost yet, and modules that can't be corrected mostly
-- have said so before. Single ones are cosmic and told of nowhere. The threshold is ours.
CREATE ALERT host_memory_corrected
WITH (severity = 'warning', "label.class" = 'hardware',
      summary = '{{ errors }} corrected memory errors on {{ host }} in an hour: {{ controller }} {{ dimm }} {{ label }}')
AS
SELECT host, controller, dimm, increase(corrected_total) AS errors, last(label) AS label
FROM HOP(memory_controller, ts, INTERVAL '1 minute', INTERVAL '1 hour')
GROUP BY window_start, window_end, host, controller, dimm
HAVING increase(corrected_total) >= setting('host_memory_corrected_errors');
