-- A page fault (XID 31) is mostly the application's, and then it turns up on any GPU that the application runs on. Twice within
-- a day on one GPU of a machine and on no other of it is suspicious: take that GPU for a diagnosis. XIDs less than three
-- minutes apart are one burst. Source: NVSentinel (RepeatedXID31OnSameGPU against ..OnDifferentGPU).
CREATE ALERT gpu_xid31_repeat_same
WITH (severity = 'warning', "label.class" = 'hardware',
      no_data = 'resolve',
      summary = 'GPU {{ gpu_uuid }} on {{ host }}: XID 31 in {{ bursts }} bursts within a day, and on no other GPU there')
AS
WITH faults AS (
  SELECT window_end, host, gpu_uuid, ts,
         lag(ts) OVER (PARTITION BY window_end, host, gpu_uuid ORDER BY ts) AS before
  FROM HOP(gpu_event, ts, INTERVAL '1 minute', INTERVAL '24 hours')
  WHERE kind = 'xid' AND code = 31),
counted AS (
  SELECT window_end, host, gpu_uuid, count(*) AS bursts
  FROM faults
  WHERE before IS NULL OR ts - before > INTERVAL '3 minutes'
  GROUP BY window_end, host, gpu_uuid),
compared AS (
  SELECT host, gpu_uuid, bursts, count(*) OVER (PARTITION BY window_end, host) AS gpus
  FROM counted)
SELECT host, gpu_uuid, bursts
FROM compared
WHERE gpus = 1 AND bursts >= setting('gpu_xid31_repeat_same_bursts');
