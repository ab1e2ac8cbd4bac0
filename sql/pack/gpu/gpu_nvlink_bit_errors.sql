-- An NVLink of the fifth generation (Blackwell) failed to recover, or has a bit error ratio above 1e-12 after correction: these
-- links have no CRC and replay counters any more, which gpu_nvlink_errors looks at. Threshold: what IEEE 802.3 asks of a link
-- (1e-12); that a recovery failed is told at once, which is ours.
CREATE ALERT gpu_nvlink_bit_errors
WITH (severity = 'warning', "label.class" = 'hardware',
      for = '1 minute',
      keep_firing_for = '10 minutes',
      summary = 'GPU {{ gpu_uuid }} on {{ host }}: {{ failed }} failed NVLink recoveries in two minutes, bit error ratio {{ ber }}')
AS
SELECT host, gpu_uuid, coalesce(increase(nvlink_recoveries_failed_total), 0) AS failed,
       max(nvlink_bit_error_ratio) AS ber
FROM HOP(gpu, ts, INTERVAL '10 seconds', INTERVAL '2 minutes')
GROUP BY window_start, window_end, host, gpu_uuid
HAVING coalesce(increase(nvlink_recoveries_failed_total), 0) > 0
    OR coalesce(max(nvlink_bit_error_ratio), 0) > setting('gpu_nvlink_bit_errors_ratio');
