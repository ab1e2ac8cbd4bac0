-- Nobody keeps the clock of a machine: the kernel says so, and that it may be wrong by 16 seconds, the most that it counts to. It
-- drifts by seconds a week; the offset, which host_clock_skew looks at, is not known then. Source: node-mixin
-- (NodeClockNotSynchronising, 16 s for ten minutes).
CREATE ALERT host_clock_unsynchronised
WITH (severity = 'warning', "label.class" = 'service',
      for = '10 minutes',
      summary = 'nobody keeps the clock of {{ host }}; it may be wrong by {{ seconds }} s')
AS
SELECT host, round(max(clock_error_max_seconds), 1) AS seconds
FROM HOP(host, ts, INTERVAL '10 seconds', INTERVAL '1 minute')
GROUP BY window_start, window_end, host
HAVING bool_and(NOT clock_synchronised) AND min(clock_error_max_seconds) >= setting('host_clock_unsynchronised_seconds');
