-- The link of an InfiniBand port failed and had to be trained anew. RDMA connections over it break, and NCCL takes the job
-- down. One is enough; the counter starts anew with the driver, which is no failure. Source: NVSentinel (link_downed is fatal
-- there), gpud.
CREATE ALERT ib_link_downed
WITH (severity = 'critical', "label.class" = 'hardware',
      keep_firing_for = '10 minutes',
      summary = 'InfiniBand {{ device }} port {{ port }} on {{ host }} lost its link {{ times }} times; it is {{ state }} now')
AS
SELECT host, device, port, increase(link_downed_total) AS times, last(state) AS state
FROM HOP(ib, ts, INTERVAL '10 seconds', INTERVAL '2 minutes')
GROUP BY window_start, window_end, host, device, port
HAVING increase(link_downed_total) > 0;
