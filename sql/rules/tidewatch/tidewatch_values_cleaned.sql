-- A source sends values that can't be: a sensor is broken, or a unit is another one than its column has. They are NULL now, or what
-- clean.rules says, and a rule that waits for such a value would wait in vain: so this is told. NaN, which says itself that it is no
-- value, and conversions are not counted here.
CREATE ALERT tidewatch_values_cleaned
WITH (severity = 'warning', "label.class" = 'tidewatch', keep_firing_for = '10 minutes', no_data = 'resolve',
      summary = '{{ cleaned }} values of {{ column_name }} can not be, in 5 minutes')
AS
SELECT labels['column'] AS column_name, labels['part'] AS part, increase(value) AS cleaned
FROM HOP(metrics, ts, INTERVAL '10 seconds', INTERVAL '5 minutes')
WHERE name = 'tidewatch_cleaned_values_total'
GROUP BY window_start, window_end, labels['column'], labels['part']
HAVING increase(value) > 0;
