-- From one address a row of passwords was refused within a quarter of an hour, and then a login was accepted: one may have been found. A person who
-- mistypes stops long before that; a bastion behind which many people log in does not. Reads ssh_login (docs/logs.md). Source: ours.
CREATE ALERT host_login_after_failures
WITH (severity = 'warning', "label.class" = 'security', key = 'host, address', keep_firing_for = '30 minutes',
      summary = 'a login on {{ host }} from {{ address }} after {{ failures }} refused passwords: {{ message }}')
AS
SELECT ts, host, address, message, accepted,
       count(*) FILTER (WHERE NOT accepted) OVER (PARTITION BY host, address ORDER BY ts RANGE BETWEEN INTERVAL '15 minutes' PRECEDING AND CURRENT ROW) AS failures
FROM ssh_login
QUALIFY accepted AND failures >= setting('host_login_after_failures');
