-- More than one packet in a hundred is broken: a cable, a transceiver or a port. Threshold: node-mixin (1 %).
CREATE ALERT net_errors
WITH (severity = 'warning', "label.class" = 'performance',
      for = '1 minute',
      summary = '{{ interface }} on {{ host }}: {{ errors }} of the packets are broken')
AS
SELECT host, interface,
       ratio(increase(rx_errors_total) + increase(tx_errors_total),
             increase(rx_packets_total) + increase(tx_packets_total)) AS errors
FROM HOP(net, ts, INTERVAL '10 seconds', INTERVAL '2 minutes')
GROUP BY window_start, window_end, host, interface
HAVING ratio(increase(rx_errors_total) + increase(tx_errors_total),
             increase(rx_packets_total) + increase(tx_packets_total)) > 0.01;
