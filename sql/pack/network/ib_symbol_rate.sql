-- More than ten symbol errors a second for minutes: error correction does not catch up, packets are lost and repeated. A cable
-- or a transceiver close to the point where the link goes down. Links with PAM4 (HDR and later) have raw errors all the time:
-- the rate counts, never the total. Threshold: NVSentinel (10 a second); one burst is out of the window long before two
-- minutes.
CREATE ALERT ib_symbol_rate
WITH (severity = 'warning', "label.class" = 'hardware',
      for = '2 minutes',
      summary = 'InfiniBand {{ device }} port {{ port }} on {{ host }}: {{ errors_per_second }} symbol errors a second')
AS
SELECT host, device, port, round(rate(symbol_error_total), 1) AS errors_per_second
FROM HOP(ib, ts, INTERVAL '10 seconds', INTERVAL '1 minute')
GROUP BY window_start, window_end, host, device, port
HAVING rate(symbol_error_total) > setting('ib_symbol_rate_per_second');
