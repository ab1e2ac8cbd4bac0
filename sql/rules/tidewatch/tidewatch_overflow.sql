-- A limit of the engine is exceeded: series, groups or rows that came on top are not watched. Tidewatch watches itself here.
-- model::limits names the limits; 'tidewatch explain' shows which rule has how many groups.
CREATE ALERT tidewatch_overflow
WITH (severity = 'critical', "label.class" = 'tidewatch', keep_firing_for = '5 minutes', no_data = 'resolve',
      summary = 'a limit is exceeded: {{ limit_name }} {{ table_name }}; what is beyond it is not watched')
AS
SELECT name AS limit_name, labels['table'] AS table_name, labels['part'] AS part, increase(value) AS beyond
FROM HOP(metrics, ts, INTERVAL '10 seconds', INTERVAL '1 minute')
WHERE name IN ('tidewatch_engine_overflow_rows_total', 'tidewatch_engine_overflow_groups_total')
GROUP BY window_start, window_end, name, labels['table'], labels['part']
HAVING increase(value) > 0;
