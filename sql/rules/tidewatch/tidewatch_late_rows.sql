-- One row in a hundred came after its windows were closed: live rules did not see it, and the history has it. A collector's clock is
-- behind, or `delay` is too short for the way that rows take.
CREATE ALERT tidewatch_late_rows
WITH (severity = 'warning', "label.class" = 'tidewatch', for = '1 minute', keep_firing_for = '5 minutes',
      no_data = 'resolve',
      summary = '{{ share }} of the rows of {{ table_name }} come too late for their windows')
AS
SELECT labels['table'] AS table_name, labels['part'] AS part, avg(value) AS share
FROM HOP(metrics, ts, INTERVAL '10 seconds', INTERVAL '5 minutes')
WHERE name = 'tidewatch_late_rows_ratio'
GROUP BY window_start, window_end, labels['table'], labels['part']
HAVING avg(value) > 0.01;
