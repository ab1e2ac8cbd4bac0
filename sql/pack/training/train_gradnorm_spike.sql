-- The norm of the gradient jumped to ten times its usual size: it does so a few steps before the loss does, while the last good checkpoint is still
-- near. Source: BLOOM's logbook; ten times the median is from there, the ten minutes it is taken over are ours: all ranks, at least 20 values and
-- 20 steps. Norms that are not finite are left out: a loss scaler makes some of them while it looks for its scale.
CREATE ALERT train_gradnorm_spike
WITH (severity = 'warning', "label.class" = 'service', no_data = 'resolve',
      summary = 'the gradient norm of job {{ job }} reached {{ norm }}, usual is {{ usual }}: look at the loss around step {{ step }}')
AS
SELECT job, max(gradient_norm) AS norm, approx_percentile(gradient_norm, 0.5) AS usual, max(step) AS step
FROM HOP(train_step, ts, INTERVAL '10 seconds', INTERVAL '10 minutes')
WHERE gradient_norm < 1e300
GROUP BY window_start, window_end, job
HAVING max(gradient_norm) > setting('train_gradnorm_spike_times') * approx_percentile(gradient_norm, 0.5)
   AND count(*) >= 20 AND max(step) - min(step) >= 20;
