-- A machine's clock is off by more than 50 milliseconds for ten minutes: logs of several machines can't be put in order, NCCL's
-- and Kerberos' timeouts go wrong, and beyond seconds its rows come late or too early for our windows. Threshold: node-mixin
-- (NodeClockSkewDetected, 50 ms for ten minutes).
CREATE ALERT host_clock_skew
WITH (severity = 'warning', "label.class" = 'service',
      for = '10 minutes',
      summary = 'the clock of {{ host }} is off by {{ seconds }} s')
AS
SELECT host, round(last(clock_offset_seconds), 3) AS seconds
FROM HOP(host, ts, INTERVAL '10 seconds', INTERVAL '1 minute')
GROUP BY window_start, window_end, host
HAVING min(abs(clock_offset_seconds)) > setting('host_clock_skew_seconds');
