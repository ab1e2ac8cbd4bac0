-- The mean loss of a minute is half above that of the twenty minutes before, and six of their standard deviations: the training diverges, or has come
-- to bad data. Source: BLOOM's logbook and PaLM's practice (1.5 times; go back 100 steps and leave the batches out); both conditions together
-- are ours, so that neither a noisy loss nor a very smooth one fires. Who never recovers is told for twenty minutes: then that is the usual loss.
-- The stream: the mean loss of a job, over all ranks, by minute. Losses that are not finite are train_loss_nan's.
CREATE STREAM train_loss_spike_minute AS
SELECT job, avg(loss) AS loss, max(step) AS step
FROM TUMBLE(train_step, ts, INTERVAL '1 minute')
WHERE abs(loss) < 1e300
GROUP BY window_start, window_end, job;

CREATE ALERT train_loss_spike
WITH (severity = 'warning', "label.class" = 'service', no_data = 'resolve',
      summary = 'the loss of job {{ job }} jumped to {{ loss | round(3) }} at step {{ step }}; before it was {{ usual | round(3) }}')
AS
SELECT job, loss, step,
       avg(loss) OVER (PARTITION BY job ORDER BY ts ROWS BETWEEN 20 PRECEDING AND 1 PRECEDING) AS usual,
       stddev(loss) OVER (PARTITION BY job ORDER BY ts ROWS BETWEEN 20 PRECEDING AND 1 PRECEDING) AS deviation,
       count(loss) OVER (PARTITION BY job ORDER BY ts ROWS BETWEEN 20 PRECEDING AND 1 PRECEDING) AS minutes
FROM train_loss_spike_minute
QUALIFY usual > 0 AND minutes >= 10
    AND setting('train_loss_spike_times') * usual < loss
    AND usual + setting('train_loss_spike_deviations') * deviation < loss;
