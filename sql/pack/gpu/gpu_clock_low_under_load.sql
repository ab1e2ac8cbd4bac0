-- A GPU works as hard as others of its model and at less than 0.7 of their clock, and neither set clocks (bit 2 of
-- throttle_reasons), the power cap (4), heat (64) nor the power brake (128) say why: those have rules of their own. All ranks
-- of its job wait for it. Compared with the median of at least four working GPUs of the model, so that clocks that are low
-- everywhere accuse nobody. The share is ours; Azure's node health checks look at application clocks for the same reason.
CREATE ALERT gpu_clock_low_under_load
WITH (severity = 'warning', "label.class" = 'performance',
      every = '1 minute', over = '2 minutes', for = '8 minutes',
      summary = 'GPU {{ gpu_uuid }} on {{ host }} runs at {{ clock }} MHz at {{ utilization }} load, others of its model at {{ usual }} MHz; throttle reasons {{ reasons }}')
AS
WITH working AS (
  SELECT host, gpu_uuid, max(gpu_name) AS gpu_name, avg(sm_clock_mhz) AS clock, avg(utilization_ratio) AS utilization,
         bit_or(throttle_reasons) AS reasons,
         avg(CASE WHEN (throttle_reasons & 198) <> 0 THEN 1.0 ELSE 0.0 END) AS explained
  FROM gpu
  GROUP BY host, gpu_uuid
  HAVING avg(utilization_ratio) > setting('gpu_clock_low_under_load_utilization_ratio')),
usual AS (SELECT gpu_name, median(clock) AS clock, count(*) AS gpus FROM working GROUP BY gpu_name)
SELECT w.host, w.gpu_uuid, round(w.clock) AS clock, round(u.clock) AS usual, round(w.utilization, 2) AS utilization, w.reasons
FROM working w JOIN usual u ON u.gpu_name = w.gpu_name
WHERE u.gpus >= 4 AND w.explained < 0.5
  AND w.clock < u.clock * setting('gpu_clock_low_under_load_ratio');
