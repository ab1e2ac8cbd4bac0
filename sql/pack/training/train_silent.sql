-- A job told neither end nor failure, and its processes have left every GPU: it was killed (no memory, a node that went down, a signal), and
-- nothing restarted it. Nobody is told otherwise: whoever waits for it waits. Source: ours; BLOOM saw crashes after which Slurm went on holding
-- the nodes. A job whose processes are still there and do nothing is train_stall's.
-- A warning, since a job that was cancelled or ran into its time limit looks the same unless its epilog tells 'end'; critical from as many GPUs as
-- a site would get up for. Knows Slurm's jobs only (gpu.job).
-- The streams: whether a job was on a GPU, on how many, and whether it stepped, by minute.
CREATE STREAM train_silent_gpus AS
SELECT job, count(DISTINCT gpu_uuid) AS gpus, max(ts) AS held_at
FROM TUMBLE(gpu, ts, INTERVAL '1 minute')
WHERE job IS NOT NULL
GROUP BY window_start, window_end, job;

CREATE STREAM train_silent_steps AS
SELECT job, max(step) AS step, max(ts) AS heard_at
FROM TUMBLE(train_step, ts, INTERVAL '1 minute')
GROUP BY window_start, window_end, job;

CREATE ALERT train_silent
WITH (severity = 'warning', "label.class" = 'service',
      summary = 'job {{ job }} is gone from its {{ gpus }} GPUs since {{ minutes }} minutes and told no end; its last step was {{ step }}')
AS
WITH held AS (
  SELECT window_start, window_end, job, max(gpus) AS gpus, max(held_at) AS held_at
  FROM HOP(train_silent_gpus, ts, INTERVAL '1 minute', INTERVAL '24 hours')
  GROUP BY window_start, window_end, job
), stepped AS (
  SELECT job, last_value(step ORDER BY heard_at) AS step, max(heard_at) AS heard_at
  FROM HOP(train_silent_steps, ts, INTERVAL '1 minute', INTERVAL '24 hours')
  GROUP BY job
), told AS (
  SELECT job, max(ts) FILTER (WHERE kind = 'start') AS started_at, max(ts) FILTER (WHERE kind IN ('end', 'failed')) AS ended_at
  FROM HOP(job_event, ts, INTERVAL '1 minute', INTERVAL '24 hours')
  GROUP BY job
)
SELECT h.job, h.gpus, s.step, CAST((extract(epoch FROM h.window_end) - extract(epoch FROM h.held_at)) / 60 AS BIGINT) AS minutes,
       CASE WHEN h.gpus >= setting('train_silent_critical_gpus') THEN 'critical' ELSE 'warning' END AS severity
FROM held h JOIN stepped s ON s.job = h.job JOIN told t ON t.job = h.job
-- What has just been started again has no row of its GPUs yet.
WHERE extract(epoch FROM h.window_end) - extract(epoch FROM greatest(h.held_at, s.heard_at, coalesce(t.started_at, h.held_at))) > setting('train_silent_seconds')
  -- At the window's left edge an end is forgotten before the GPUs: after 23 hours it is told no more.
  AND h.held_at > h.window_start + INTERVAL '1 hour'
  -- The start of a job that ran for more than a day is known no more.
  AND NOT coalesce(t.ended_at >= coalesce(t.started_at, h.window_start) AND t.ended_at >= s.heard_at - INTERVAL '1 minute', false);
