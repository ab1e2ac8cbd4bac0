-- From one address came a row of refused passwords, and then a login: a password may have been found. A person who mistypes stops long before
-- that; a bastion behind which many people log in does not. Needs the lines of sshd in `log` (docs/logs.md). Source: ours.
CREATE ALERT host_login_after_failures
WITH (severity = 'warning', "label.class" = 'security', no_data = 'resolve', keep_firing_for = '30 minutes',
      summary = 'a login on {{ host }} from {{ address }} after {{ failures }} refused passwords: {{ login }}')
AS
SELECT host, regexp_replace(message, '^.* from ([0-9a-fA-F.:]+) port .*$', '\1') AS address,
       count(*) FILTER (WHERE message LIKE '%Failed %') AS failures,
       max(message) FILTER (WHERE message LIKE '%Accepted %') AS login
FROM HOP(log, ts, INTERVAL '30 seconds', INTERVAL '15 minutes')
WHERE message LIKE '%Failed password for % from % port %'
   OR message LIKE '%Failed keyboard-interactive/pam for % from % port %'
   OR message LIKE '%Accepted % for % from % port %'
GROUP BY window_start, window_end, host, regexp_replace(message, '^.* from ([0-9a-fA-F.:]+) port .*$', '\1')
HAVING count(*) FILTER (WHERE message LIKE '%Failed %') >= setting('host_login_after_failures')
   AND max(ts) FILTER (WHERE message LIKE '%Accepted %') > min(ts) FILTER (WHERE message LIKE '%Failed %');
