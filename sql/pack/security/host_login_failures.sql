-- Somebody tries passwords on a machine. Reads ssh_login: the lines of sshd in `log` (docs/logs.md), of one source, or each counts twice.
-- Keys that do not fit are not counted: a client with several of them offers each. Source: ours; what fail2ban looks for.
CREATE ALERT host_login_failures
WITH (severity = 'warning', "label.class" = 'security', no_data = 'resolve',
      summary = '{{ failures }} passwords were refused on {{ host }} within ten minutes')
AS
SELECT host, count(*) AS failures
FROM HOP(ssh_login, ts, INTERVAL '30 seconds', INTERVAL '10 minutes')
WHERE NOT accepted
GROUP BY window_start, window_end, host
HAVING count(*) >= setting('host_login_failures');
