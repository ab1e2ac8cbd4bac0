-- One rank takes a third longer than the usual rank of its job: all the others wait for it at the next collective. The median of its last ten minutes
-- against the median of all ranks. Source: NVRx, whose default is 0.75 of the others' speed; at least ten steps each, from there, and three ranks, ours.
-- Where step_seconds is measured after the collective all ranks are equally slow, and nobody is found: tell the time of the rank's own work.
CREATE ALERT train_straggler
WITH (severity = 'warning', "label.class" = 'performance', for = '3 minutes', no_data = 'resolve',
      summary = 'rank {{ rank }} of job {{ job }} on {{ host }} takes {{ seconds | round(3) }} s for a step, the usual rank {{ usual | round(3) }} s')
AS
WITH of_rank AS (
  SELECT window_start, window_end, job, rank, max(host) AS host, median(step_seconds) AS seconds
  FROM HOP(train_step, ts, INTERVAL '1 minute', INTERVAL '10 minutes')
  WHERE step_seconds > 0
  GROUP BY window_start, window_end, job, rank
  HAVING count(*) >= 10
), beside AS (
  SELECT job, rank, host, seconds, median(seconds) OVER (PARTITION BY job) AS usual, count(*) OVER (PARTITION BY job) AS ranks
  FROM of_rank
)
SELECT job, rank, host, seconds, usual
FROM beside
WHERE ranks >= 3 AND ratio(usual, seconds) < setting('train_straggler_ratio');
