-- The memory (HBM) is hotter than it may be: it is refreshed more often, then slowed down, and it wears out. The GPU's own
-- temperature can be fine meanwhile. Threshold: the highest operating temperature of the memory that nvidia-smi -q shows on
-- A100 and H100 boards (95); DCGM and gpud compare with the board's own figure, which the table does not have.
CREATE ALERT gpu_memory_temperature
WITH (severity = 'warning', "label.class" = 'hardware',
      for = '5 minutes',
      keep_firing_for = '1 minute',
      summary = 'GPU {{ gpu_uuid }} on {{ host }}: its memory averages {{ average }} C, the GPU {{ gpu }} C')
AS
SELECT host, gpu_uuid, round(avg(memory_temperature_celsius), 1) AS average, round(avg(temperature_celsius), 1) AS gpu
FROM HOP(gpu, ts, INTERVAL '10 seconds', INTERVAL '1 minute')
GROUP BY window_start, window_end, host, gpu_uuid
HAVING avg(memory_temperature_celsius) > setting('gpu_memory_temperature_celsius');
