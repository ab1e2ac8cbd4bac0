-- The loss and the gradients' norm of a training job, without the noise of single batches. A loss that is no number is left out of the
-- means; it stays in loss.
CREATE VIEW train_loss_smooth AS
SELECT ts, job, rank, host, step, loss, gradient_norm, learning_rate,
       ewma(loss, 0.05, ts) FILTER (WHERE NOT isnan(loss)) OVER hundred AS loss_ewma,
       median(loss) FILTER (WHERE NOT isnan(loss)) OVER hundred AS loss_median,
       zscore(loss, avg(loss) FILTER (WHERE NOT isnan(loss)) OVER before, stddev(loss) FILTER (WHERE NOT isnan(loss)) OVER before) AS loss_zscore,
       ewma(gradient_norm, 0.05, ts) FILTER (WHERE NOT isnan(gradient_norm)) OVER hundred AS gradient_norm_ewma
FROM train_step
WINDOW hundred AS (PARTITION BY job, rank ORDER BY ts ROWS BETWEEN 99 PRECEDING AND CURRENT ROW),
       before AS (PARTITION BY job, rank ORDER BY ts ROWS BETWEEN 100 PRECEDING AND 1 PRECEDING);
