-- The loss is NaN or infinite in two steps and more: the weights are lost since the first of them, and every further step is paid for nothing.
-- One such step may be a bad batch that the trainer leaves out. Source: ByteRobust (SOSP 2025) stops on it at once; two steps are ours. Over when
-- two minutes bring finite losses only. NaN is above every number here: it is not below 1e300 either.
CREATE ALERT train_loss_nan
WITH (severity = 'critical', "label.class" = 'service', no_data = 'resolve',
      summary = 'the loss of job {{ job }} is not finite in {{ steps }} steps, the first of them {{ first_step }}: go back to a checkpoint before it')
AS
SELECT job, count(DISTINCT step) FILTER (WHERE NOT abs(loss) <= 1e300) AS steps,
       min(step) FILTER (WHERE NOT abs(loss) <= 1e300) AS first_step
FROM HOP(train_step, ts, INTERVAL '10 seconds', INTERVAL '30 minutes')
WHERE loss IS NOT NULL
GROUP BY window_start, window_end, job
HAVING count(DISTINCT step) FILTER (WHERE NOT abs(loss) <= 1e300) >= setting('train_loss_nan_steps')
   AND max(ts) FILTER (WHERE NOT abs(loss) <= 1e300) > max(ts) - INTERVAL '2 minutes';
