-- Logins over SSH that were accepted, and passwords that were refused, as sshd says them: in its unit of the journal, or behind its name in a
-- file of syslog such as /var/log/auth.log (docs/logs.md). A line that somebody else wrote is none, nor is what a user's name may say within a line.
CREATE VIEW ssh_login AS
SELECT ts, host, source, message,
       regexp_replace(message, '^.* from ([^ ]+) port [0-9]+.*$', '\1') AS address,
       message ~ '^(([A-Z][a-z]{2} +[0-9]+ [0-9:]+|[0-9][^ ]+) [^ ]+ sshd[^ ]*: )?Accepted ' AS accepted
FROM log
WHERE message ~ '^([A-Z][a-z]{2} +[0-9]+ [0-9:]+|[0-9][^ ]+) [^ ]+ sshd[^ ]*: (Accepted [^ ]+|Failed (password|keyboard-interactive/pam)) for .* from [^ ]+ port [0-9]+'
   OR (source LIKE 'ssh%' AND message ~ '^(Accepted [^ ]+|Failed (password|keyboard-interactive/pam)) for .* from [^ ]+ port [0-9]+');
