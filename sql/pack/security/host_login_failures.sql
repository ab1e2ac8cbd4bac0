-- Somebody tries passwords on a machine. Needs the lines of sshd in `log`: the journal, or a file such as /var/log/auth.log (docs/logs.md).
-- Keys that do not fit are not counted: a client with several of them offers each. Source: ours; what fail2ban looks for.
CREATE ALERT host_login_failures
WITH (severity = 'warning', "label.class" = 'security', no_data = 'resolve',
      summary = '{{ failures }} passwords were refused on {{ host }} within ten minutes')
AS
SELECT host, count(*) AS failures
FROM HOP(log, ts, INTERVAL '30 seconds', INTERVAL '10 minutes')
WHERE message LIKE '%Failed password for %' OR message LIKE '%Failed keyboard-interactive/pam for %'
GROUP BY window_start, window_end, host
HAVING count(*) >= setting('host_login_failures');
