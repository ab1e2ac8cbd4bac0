-- The link went down and up more than once in ten minutes. Source: kube-prometheus (NodeNetworkInterfaceFlapping), NVSentinel.
CREATE ALERT net_carrier_flaps
WITH (severity = 'warning', "label.class" = 'hardware',
      summary = '{{ interface }} on {{ host }} changed its carrier {{ changes }} times')
AS
SELECT host, interface, increase(carrier_changes_total) AS changes
FROM HOP(net, ts, INTERVAL '10 seconds', INTERVAL '10 minutes')
GROUP BY window_start, window_end, host, interface
HAVING increase(carrier_changes_total) > 2;
