-- The kernel killed a process for memory. On a GPU node that is mostly a data loader or the trainer itself.
-- Threshold: any, as everywhere.
CREATE ALERT host_oom_kill
WITH (severity = 'warning', "label.class" = 'service',
      summary = 'the kernel of {{ host }} killed {{ kills }} processes for memory')
AS
SELECT host, increase(oom_kills_total) AS kills
FROM HOP(host, ts, INTERVAL '10 seconds', INTERVAL '5 minutes')
GROUP BY window_start, window_end, host
HAVING increase(oom_kills_total) > 0;
