-- A PCIe link corrects more than an error a second for ten minutes: each is a packet that is sent anew, and a link that does so is
-- next to fall back to fewer lanes or to fail. The threshold is ours; healthy links have none for days.
CREATE ALERT host_pcie_correctable
WITH (severity = 'warning', "label.class" = 'hardware',
      summary = '{{ class }} {{ device }} ({{ pci_bus_id }}) on {{ host }}: {{ errors }} corrected PCIe errors in ten minutes')
AS
SELECT host, pci_bus_id, last(class) AS class, last(device) AS device, increase(correctable_errors_total) AS errors
FROM HOP(pcie, ts, INTERVAL '30 seconds', INTERVAL '10 minutes')
GROUP BY window_start, window_end, host, pci_bus_id
HAVING increase(correctable_errors_total) >= setting('host_pcie_correctable_errors');
