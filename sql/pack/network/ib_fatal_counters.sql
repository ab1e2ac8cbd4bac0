-- An InfiniBand port lost packets to broken flow control (excessive_buffer_overrun_errors), or saw so many errors that the link
-- layer gave up (local_link_integrity_errors): neither happens on a good cable. Source: NVSentinel, which drains the node. It
-- also counts rnr_nak_retry_err, which is left out: by the driver's own definition those were within the limit of retries, and
-- a slow receiver makes them every day.
CREATE ALERT ib_fatal_counters
WITH (severity = 'critical', "label.class" = 'hardware',
      keep_firing_for = '10 minutes',
      summary = 'InfiniBand {{ device }} port {{ port }} on {{ host }}: {{ overruns }} buffer overruns, {{ integrity }} link integrity errors in two minutes')
AS
SELECT host, device, port, coalesce(increase(excessive_buffer_overrun_errors_total), 0) AS overruns,
       coalesce(increase(local_link_integrity_errors_total), 0) AS integrity
FROM HOP(ib, ts, INTERVAL '10 seconds', INTERVAL '2 minutes')
GROUP BY window_start, window_end, host, device, port
HAVING overruns + integrity > 0;
