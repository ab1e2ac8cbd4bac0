-- A machine has fewer InfiniBand ports at their rate than the table `expected` says (ib_ports, ib_rate_gigabits_per_second;
-- without a rate any active port counts): a job over all of them goes at the pace of the slowest, or does not start. Usual:
-- A100 one of 200, H100, H200 and B200 eight of 400. Only for machines that sent rows of ib within five minutes and are alive:
-- host_silent tells the others. Held ten minutes, as a port that flaps is not well. Source: gpud (30 seconds, sticky for ten
-- minutes).
CREATE ALERT ib_ports_or_rate_low
WITH (severity = 'critical', "label.class" = 'hardware',
      every = '30 seconds', over = '5 minutes', for = '30 seconds', keep_firing_for = '10 minutes',
      summary = '{{ host }} has {{ good }} of {{ ib_ports }} InfiniBand ports at {{ rate }} Gb/s; not well: {{ bad }}')
AS
WITH heard AS (SELECT host, max(ts) AS newest FROM collector WHERE collector = 'host' GROUP BY host),
alive AS (SELECT host FROM heard WHERE newest > (SELECT max(newest) FROM heard) - INTERVAL '1 minute'),
ports AS (
  SELECT host, device, port, last(state) AS state, last(rate_gigabits_per_second) AS rate,
         max(ts) > (SELECT max(newest) FROM heard) - INTERVAL '1 minute' AS seen
  FROM ib
  GROUP BY host, device, port),
judged AS (
  SELECT p.host, p.device, p.port, p.state, p.rate,
         p.seen AND upper(p.state) LIKE '%ACTIVE'
           AND (e.ib_rate_gigabits_per_second IS NULL OR p.rate >= e.ib_rate_gigabits_per_second) AS good
  FROM ports p JOIN expected e ON e.host = p.host),
counted AS (
  SELECT host, count(*) FILTER (WHERE good) AS good,
         string_agg(CASE WHEN good THEN NULL ELSE device || '/' || port || ' ' || coalesce(state, '?') || ' ' || coalesce(rate, 0) END,
                    ', ' ORDER BY device, port) AS bad
  FROM judged
  GROUP BY host)
SELECT e.host, e.ib_ports, coalesce(CAST(e.ib_rate_gigabits_per_second AS VARCHAR), 'any') AS rate, c.good,
       coalesce(c.bad, 'ports that are not there') AS bad
FROM expected e JOIN counted c ON c.host = e.host JOIN alive a ON a.host = e.host
WHERE c.good < e.ib_ports;
