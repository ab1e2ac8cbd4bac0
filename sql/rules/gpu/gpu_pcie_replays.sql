-- The PCIe link repeats more packets in a minute than its generation allows (replays per lane and minute: 0.15, 0.30, 0.48,
-- 0.96, 1.92, 3.84 for generations 1 to 6; DCGM's table). A cable, a riser or a slot.
CREATE ALERT gpu_pcie_replays
WITH (severity = 'warning', "label.class" = 'hardware',
      for = '1 minute',
      summary = 'GPU {{ gpu_uuid }} on {{ host }}: {{ replays }} PCIe replays in a minute')
AS
SELECT host, gpu_uuid, increase(pcie_replays_total) AS replays
FROM HOP(gpu, ts, INTERVAL '10 seconds', INTERVAL '1 minute')
GROUP BY window_start, window_end, host, gpu_uuid
HAVING increase(pcie_replays_total) > max(pcie_width) *
       CASE max(pcie_generation) WHEN 1 THEN 0.15 WHEN 2 THEN 0.30 WHEN 3 THEN 0.48 WHEN 4 THEN 0.96 WHEN 5 THEN 1.92 ELSE 3.84 END;
