-- A job's step number stands: for ten minutes, or five of its usual steps where those are longer, no step, checkpoint or evaluation. Nothing
-- crashes when a collective hangs; BLOOM lost 18 hours once. Source: DLRover waits 10 minutes, NVRx 45; five steps is ours.
-- What is no stall: a job that told its end or failure; one whose processes left all GPUs (Slurm's jobs, gpu.job): train_silent has those. Trainers
-- that never told an event can't tell an end either: theirs is a warning, no page.
-- The streams: a minute of steps per job; whether the job was on a GPU in that minute; and out of 24 hours of both the state of each job as
-- it was known at the end of each minute.
CREATE STREAM train_stall_minute AS
SELECT job, max(step) AS step, max(ts) AS heard_at, approx_percentile(step_seconds, 0.5) AS seconds
FROM TUMBLE(train_step, ts, INTERVAL '1 minute')
GROUP BY window_start, window_end, job;

CREATE STREAM train_stall_gpus AS
SELECT job, count(*) AS gpu_rows
FROM TUMBLE(gpu, ts, INTERVAL '1 minute')
WHERE job IS NOT NULL
GROUP BY window_start, window_end, job;

CREATE STREAM train_stall_pulse AS
WITH steps AS (
  SELECT window_start, window_end, job, step, heard_at, seconds,
         step IS DISTINCT FROM lag(step) OVER (PARTITION BY job ORDER BY ts) AS advanced
  FROM HOP(train_stall_minute, ts, INTERVAL '1 minute', INTERVAL '24 hours')
), told AS (
  SELECT job, max(ts) FILTER (WHERE kind NOT IN ('end', 'failed')) AS told_at,
         max(ts) FILTER (WHERE kind = 'start') AS started_at, max(ts) FILTER (WHERE kind IN ('end', 'failed')) AS ended_at
  FROM HOP(job_event, ts, INTERVAL '1 minute', INTERVAL '24 hours')
  GROUP BY job
), held AS (
  SELECT job, max(ts) AS held_at
  FROM HOP(train_stall_gpus, ts, INTERVAL '1 minute', INTERVAL '24 hours')
  GROUP BY job
), known AS (
  SELECT s.window_start, s.window_end, s.job, last_value(s.step ORDER BY s.heard_at) AS step,
         max(s.heard_at) FILTER (WHERE s.advanced) AS advanced_at, median(s.seconds) AS seconds,
         max(t.told_at) AS told_at, max(t.started_at) AS started_at, max(t.ended_at) AS ended_at, max(h.held_at) AS held_at
  FROM steps s LEFT JOIN told t ON t.job = s.job LEFT JOIN held h ON h.job = s.job
  GROUP BY s.window_start, s.window_end, s.job
)
SELECT job, step, greatest(advanced_at, told_at) AS alive_at, coalesce(seconds, 0) AS seconds, told_at IS NOT NULL AS tells,
       -- A rank that is a little later than the one that told the end does not revive the job.
       coalesce(ended_at > coalesce(started_at, window_start) AND advanced_at < ended_at + INTERVAL '1 minute', false) AS ended,
       coalesce(held_at < window_end - INTERVAL '3 minutes', false) AS gone
FROM known
-- At the window's left edge an end is forgotten before the steps: what is so old is told no more.
WHERE greatest(advanced_at, told_at) > window_start + INTERVAL '1 hour';

CREATE ALERT train_stall
WITH (severity = 'critical', "label.class" = 'service',
      summary = 'job {{ job }} stands at step {{ step }} for {{ minutes }} minutes; a step usually takes {{ usual_seconds | round(1) }} s')
AS
SELECT job, last(step) AS step, CAST((extract(epoch FROM window_end) - extract(epoch FROM last(alive_at))) / 60 AS BIGINT) AS minutes,
       last(seconds) AS usual_seconds, CASE WHEN last(tells) THEN 'critical' ELSE 'warning' END AS severity
FROM HOP(train_stall_pulse, ts, INTERVAL '1 minute', INTERVAL '10 minutes')
GROUP BY window_start, window_end, job
HAVING NOT last(ended) AND NOT last(gone)
   AND extract(epoch FROM window_end) - extract(epoch FROM last(alive_at)) > setting('train_stall_seconds')
   AND extract(epoch FROM window_end) - extract(epoch FROM last(alive_at)) > setting('train_stall_steps') * last(seconds);
