-- A network card, drive or accelerator has fewer lanes, or runs at a lower speed, than it and its slot can: half the lanes are half
-- the bandwidth, and nothing else says so. A card that is wider than its slot is as it should be. GPUs, whose links rest when
-- idle, have gpu_pcie_width_low. Source: 25 such cases reported with InfiniteHBD; signals of node problem detector.
CREATE ALERT host_pcie_link_low
WITH (severity = 'warning', "label.class" = 'hardware',
      for = '10 minutes',
      summary = '{{ class }} {{ device }} ({{ pci_bus_id }}) on {{ host }}: {{ lanes }} of {{ lanes_max }} lanes, {{ speed }} of {{ speed_max }} GT/s')
AS
SELECT host, pci_bus_id, last(class) AS class, last(device) AS device,
       max(link_width) AS lanes, least(max(link_width_max), max(slot_width_max)) AS lanes_max,
       max(link_speed_gigatransfers_per_second) AS speed,
       least(max(link_speed_max_gigatransfers_per_second), max(slot_speed_max_gigatransfers_per_second)) AS speed_max
FROM HOP(pcie, ts, INTERVAL '30 seconds', INTERVAL '2 minutes')
WHERE class IN ('network', 'storage', 'accelerator')
GROUP BY window_start, window_end, host, pci_bus_id
HAVING coalesce(lanes < lanes_max, speed < speed_max) OR coalesce(speed < speed_max, lanes < lanes_max);
