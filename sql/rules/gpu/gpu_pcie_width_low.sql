-- The link to the host has fewer lanes than it could while the GPU works: half the lanes are half the bandwidth, and nothing
-- else says so. Idle links may rest. Source: 25 cases reported with InfiniteHBD.
CREATE ALERT gpu_pcie_width_low
WITH (severity = 'warning', "label.class" = 'hardware',
      for = '2 minutes',
      summary = 'GPU {{ gpu_uuid }} on {{ host }}: {{ lanes }} of {{ lanes_max }} PCIe lanes')
AS
SELECT host, gpu_uuid, max(pcie_width) AS lanes, max(pcie_width_max) AS lanes_max
FROM HOP(gpu, ts, INTERVAL '10 seconds', INTERVAL '2 minutes')
GROUP BY window_start, window_end, host, gpu_uuid
HAVING max(pcie_width) < max(pcie_width_max) AND avg(utilization_ratio) > 0.05;
