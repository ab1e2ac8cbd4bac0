-- A machine has sent nothing for two minutes: it is down, off the network, or its agent died. Nothing else says so: every other rule
-- about it has no data. Threshold: ours; Prometheus' usual up == 0 for 5 minutes is for scrapes that fail now and then.
-- A machine that somebody works on is silent for good reason: a row of the table `maintenance` says so, and until when.
CREATE ALERT host_silent
WITH (severity = 'critical', "label.class" = 'hardware',
      summary = '{{ host }} has sent nothing for {{ silence }}')
AS
SELECT s.host, s.silence
FROM LAST_SEEN(host, ts) s
LEFT JOIN maintenance m ON m.host = s.host AND s.window_end BETWEEN m.from_ts AND m.to_ts
WHERE s.silence > INTERVAL '2 minutes' AND m.host IS NULL;
