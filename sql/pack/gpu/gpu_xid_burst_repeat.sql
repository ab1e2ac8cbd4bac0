-- One GPU reports the same XID in five separate bursts within a day: resets don't help any more, it is a candidate for
-- replacement (RMA). XIDs less than three minutes apart are one burst; those after which nobody works on for hours (74, 79, 95,
-- 109, 119) are one burst within three hours. The application's own faults, info in xid_catalog, don't count:
-- gpu_xid31_repeat_same looks at 31. Source: NVSentinel's RepeatedXIDErrorOnSameGPU, gaps and count as there.
CREATE ALERT gpu_xid_burst_repeat
WITH (severity = 'critical', "label.class" = 'hardware',
      no_data = 'resolve',
      summary = 'GPU {{ gpu_uuid }} on {{ host }}: XID {{ code }} ({{ name }}) in {{ bursts }} bursts within a day, the last at {{ newest }}')
AS
WITH events AS (
  SELECT window_end, host, gpu_uuid, code, ts,
         lag(ts) OVER (PARTITION BY window_end, host, gpu_uuid, code ORDER BY ts) AS before
  FROM HOP(gpu_event, ts, INTERVAL '1 minute', INTERVAL '24 hours')
  WHERE kind = 'xid')
SELECT e.host, e.gpu_uuid, e.code, max(x.name) AS name, count(*) AS bursts, max(e.ts) AS newest
FROM events e
JOIN xid_catalog x ON x.code = e.code
WHERE x.severity <> 'info'
  AND (e.before IS NULL
       OR e.ts - e.before > CASE WHEN e.code IN (74, 79, 95, 109, 119) THEN INTERVAL '3 hours' ELSE INTERVAL '3 minutes' END)
GROUP BY e.window_end, e.host, e.gpu_uuid, e.code
HAVING count(*) >= setting('gpu_xid_burst_repeat_bursts');
