-- A machine has sent nothing for two minutes: it is down, off the network, or its agent died. Nothing else says so: every other rule
-- about it has no data. Threshold: ours; Prometheus' usual up == 0 for 5 minutes is for scrapes that fail now and then.
CREATE ALERT host_silent
WITH (severity = 'critical',
      summary = '{{ host }} has sent nothing for {{ silence }}')
AS
SELECT host, silence
FROM LAST_SEEN(host, ts)
WHERE silence > INTERVAL '2 minutes';
