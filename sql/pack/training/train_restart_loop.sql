-- A job started three times within an hour and wrote no checkpoint since the first of them: each time it begins where it began before. What it
-- computes is lost, and whoever restarts it (Slurm's requeue, torchelastic, a Kubernetes Job) goes on. Source: KubePodCrashLooping, NVRx's limit on
-- restarts; three is ours. Progress is a checkpoint and not a step, since steps without one are done again. Starts are counted per rank, and a run
-- that told its end does not count.
CREATE ALERT train_restart_loop
WITH (severity = 'critical', "label.class" = 'service',
      summary = 'job {{ job }} started {{ starts | int }} times within an hour, the last time on {{ host }}, and wrote no checkpoint: {{ reason }}')
AS
SELECT job, ratio(count(*) FILTER (WHERE kind = 'start'), count(DISTINCT rank) FILTER (WHERE kind = 'start')) AS starts,
       last(host) AS host, coalesce(max(message) FILTER (WHERE kind = 'failed'), 'it told no reason') AS reason
FROM HOP(job_event, ts, INTERVAL '1 minute', INTERVAL '1 hour')
GROUP BY window_start, window_end, job
HAVING ratio(count(*) FILTER (WHERE kind = 'start'), count(DISTINCT rank) FILTER (WHERE kind = 'start'))
       - coalesce(ratio(count(*) FILTER (WHERE kind = 'end'), count(DISTINCT rank) FILTER (WHERE kind = 'end')), 0)
       >= setting('train_restart_loop_starts')
   AND coalesce(max(ts) FILTER (WHERE kind = 'checkpoint') < min(ts) FILTER (WHERE kind = 'start'), true);
