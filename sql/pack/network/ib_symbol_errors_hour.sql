-- More than 120 symbol errors in an hour: more than the bit error rate that InfiniBand allows (1e-12). The cable is to be
-- cleaned or replaced before it fails. Threshold: NVSentinel, which takes the node out at this count. Jobs still run, nobody
-- has to get up: a warning here.
CREATE ALERT ib_symbol_errors_hour
WITH (severity = 'warning', "label.class" = 'hardware',
      summary = 'InfiniBand {{ device }} port {{ port }} on {{ host }}: {{ errors }} symbol errors within an hour')
AS
SELECT host, device, port, increase(symbol_error_total) AS errors
FROM HOP(ib, ts, INTERVAL '1 minute', INTERVAL '1 hour')
GROUP BY window_start, window_end, host, device, port
HAVING increase(symbol_error_total) > setting('ib_symbol_errors_hour_errors');
