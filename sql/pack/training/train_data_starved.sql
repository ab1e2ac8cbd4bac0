-- For ten minutes a job has spent three tenths of its step time waiting for data: the GPUs are paid for and idle. More loader processes, a cache, or
-- a look at the storage; nobody need get up for it. Threshold: ours. Rows that do not tell data_seconds do not count.
CREATE ALERT train_data_starved
WITH (severity = 'info', "label.class" = 'performance', for = '5 minutes', no_data = 'resolve',
      summary = 'job {{ job }} waits for data {{ share | round(2) }} of its step time')
AS
SELECT job, ratio(sum(data_seconds), sum(step_seconds)) AS share
FROM HOP(train_step, ts, INTERVAL '10 seconds', INTERVAL '10 minutes')
WHERE data_seconds IS NOT NULL
GROUP BY window_start, window_end, job
HAVING ratio(sum(data_seconds), sum(step_seconds)) > setting('train_data_starved_ratio')
   AND count(*) >= 10;
