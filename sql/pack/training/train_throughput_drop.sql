-- A job works at less than nine tenths of its own usual speed: one slow GPU, link or disk holds up all of them. Under seven tenths it is a page: the
-- run costs half as much again. Source: MegaScale (NSDI 2024), which looks for 10 %; 30 % is ours. Speed is the median over steps and ranks of tokens
-- a second, or steps a second where no tokens are told, so that the few steps that hold a checkpoint or an evaluation do not count; usual is the
-- median of up to 24 hours, of at least one. What has been slow for half a day is the usual speed.
-- The stream: each minute the speed of a job over the ten minutes before.
CREATE STREAM train_throughput_drop_speed AS
SELECT job, approx_percentile(coalesce(ratio(tokens, step_seconds), ratio(1, step_seconds)), 0.5) AS speed
FROM HOP(train_step, ts, INTERVAL '1 minute', INTERVAL '10 minutes')
WHERE step_seconds > 0
GROUP BY window_start, window_end, job;

CREATE ALERT train_throughput_drop
WITH (severity = 'warning', "label.class" = 'performance', for = '10 minutes', no_data = 'resolve',
      summary = 'job {{ job }} works at {{ share | round(2) }} of its usual speed: {{ now | round(3) }} of {{ usual | round(3) }} tokens (or steps) a second and rank')
AS
SELECT job, ratio(last(speed), approx_percentile(speed, 0.5)) AS share, last(speed) AS now, approx_percentile(speed, 0.5) AS usual,
       CASE WHEN ratio(last(speed), approx_percentile(speed, 0.5)) < setting('train_throughput_drop_critical_ratio') THEN 'critical'
            ELSE 'warning' END AS severity
FROM HOP(train_throughput_drop_speed, ts, INTERVAL '1 minute', INTERVAL '24 hours')
GROUP BY window_start, window_end, job
HAVING ratio(last(speed), approx_percentile(speed, 0.5)) < setting('train_throughput_drop_ratio')
   AND count(*) >= 60 AND max(ts) >= window_end - INTERVAL '2 minutes';
