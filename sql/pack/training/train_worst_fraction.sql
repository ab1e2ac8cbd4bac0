-- The same rank is the slowest in more than a quarter of the steps of half an hour: not by much each time, but every step waits for it. Chance would
-- spread that over all ranks. Source: probing, 300 steps and a quarter; that its step must be 5 % over the mean of the ranks, or whoever writes
-- the log is always last by a hair, and eight ranks at least, so that a quarter is more than chance, are ours. Steps longer than six seconds do not
-- come to 300: train_straggler sees those ranks.
CREATE ALERT train_worst_fraction
WITH (severity = 'warning', "label.class" = 'performance', for = '10 minutes', no_data = 'resolve',
      summary = 'rank {{ rank }} of job {{ job }} on {{ host }} was the slowest in {{ worst }} of {{ steps }} steps')
AS
WITH placed AS (
  SELECT window_start, window_end, job, rank, host, step, step_seconds,
         max(step_seconds) OVER (PARTITION BY job, step) AS longest, avg(step_seconds) OVER (PARTITION BY job, step) AS mean,
         count(*) OVER (PARTITION BY job, step) AS ranks
  FROM HOP(train_step, ts, INTERVAL '5 minutes', INTERVAL '30 minutes')
  WHERE step_seconds > 0
)
SELECT job, rank, max(host) AS host, count(*) FILTER (WHERE step_seconds = longest AND step_seconds > 1.05 * mean) AS worst, count(*) AS steps
FROM placed
WHERE ranks >= 8
GROUP BY window_start, window_end, job, rank
HAVING count(*) >= 300
   AND ratio(count(*) FILTER (WHERE step_seconds = longest AND step_seconds > 1.05 * mean), count(*)) > setting('train_worst_fraction_ratio');
