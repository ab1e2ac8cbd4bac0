-- A job steps on, and its last checkpoint is twice as old as they usually get: what it does since is lost with the next fault. BLOOM lost 7.3 hours
-- in one. Usual is the median time between checkpoints of 24 hours, of which three are wanted; ranks that tell the same one within a minute are one.
-- A start counts as a checkpoint: before it nothing could be lost. Intervals over eight hours are not judged. Thresholds: ours.
-- The stream: whether a job stepped, by minute; one that does not is train_stall's, or has ended.
CREATE STREAM train_ckpt_overdue_steps AS
SELECT job, max(step) AS step
FROM TUMBLE(train_step, ts, INTERVAL '1 minute')
GROUP BY window_start, window_end, job;

CREATE ALERT train_ckpt_overdue
WITH (severity = 'warning', "label.class" = 'service', no_data = 'resolve',
      summary = 'the last checkpoint of job {{ job }} is {{ minutes }} minutes old; usually it writes one every {{ usual_minutes }}')
AS
WITH written AS (
  SELECT window_start, window_end, job, ts,
         extract(epoch FROM ts) - extract(epoch FROM lag(ts) OVER (PARTITION BY job ORDER BY ts)) AS seconds
  FROM HOP(job_event, ts, INTERVAL '5 minutes', INTERVAL '24 hours')
  WHERE kind = 'checkpoint'
), usual AS (
  SELECT window_start, window_end, job, max(ts) AS written_at, median(seconds) FILTER (WHERE seconds > 60) AS seconds,
         count(*) FILTER (WHERE seconds > 60) AS intervals
  FROM written
  GROUP BY window_start, window_end, job
), started AS (
  SELECT job, max(ts) AS started_at
  FROM HOP(job_event, ts, INTERVAL '5 minutes', INTERVAL '24 hours')
  WHERE kind = 'start'
  GROUP BY job
), stepped AS (
  SELECT job, max(ts) AS stepped_at
  FROM HOP(train_ckpt_overdue_steps, ts, INTERVAL '5 minutes', INTERVAL '24 hours')
  GROUP BY job
), since AS (
  SELECT u.window_end, u.job, u.intervals, u.seconds AS usual, s.stepped_at,
         extract(epoch FROM u.window_end) - extract(epoch FROM greatest(u.written_at, b.started_at)) AS seconds
  FROM usual u JOIN stepped s ON s.job = u.job LEFT JOIN started b ON b.job = u.job
)
SELECT job, CAST(round(seconds / 60) AS BIGINT) AS minutes, CAST(round(usual / 60) AS BIGINT) AS usual_minutes
FROM since
WHERE intervals >= 3 AND stepped_at > window_end - INTERVAL '10 minutes'
  AND seconds > setting('train_ckpt_overdue_times') * usual
  AND seconds > setting('train_ckpt_overdue_seconds');
