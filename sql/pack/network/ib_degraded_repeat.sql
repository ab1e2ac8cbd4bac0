-- An InfiniBand port has had errors that it recovered from (link recoveries, received errors, errors of the other side) in
-- three separate five minutes of an hour: each alone is nothing, together they are a bad cable. Symbol errors are left out:
-- PAM4 links have them all the time. Counts that start anew and values that were not read are no errors. Source: NVSentinel
-- (three non-fatal events of a port within an hour).
CREATE ALERT ib_degraded_repeat
WITH (severity = 'warning', "label.class" = 'hardware',
      every = '1 minute', over = '1 hour',
      summary = 'InfiniBand {{ device }} port {{ port }} on {{ host }} had recoverable errors in {{ times }} five minutes of the last hour')
AS
WITH steps AS (
  SELECT host, device, port, ts,
         link_error_recovery_total > lag(link_error_recovery_total) OVER (PARTITION BY host, device, port ORDER BY ts) AS recovered,
         port_rcv_errors_total > lag(port_rcv_errors_total) OVER (PARTITION BY host, device, port ORDER BY ts) AS received,
         port_rcv_remote_physical_errors_total > lag(port_rcv_remote_physical_errors_total) OVER (PARTITION BY host, device, port ORDER BY ts) AS remote
  FROM ib)
SELECT host, device, port, count(DISTINCT date_bin(INTERVAL '5 minutes', ts)) AS times
FROM steps
WHERE recovered OR received OR remote
GROUP BY host, device, port
HAVING times >= setting('ib_degraded_repeat_times');
