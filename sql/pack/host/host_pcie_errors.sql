-- A device reports errors on the PCIe bus that could not be corrected (AER). A fatal one has cost the link, and mostly the device
-- until a reset: that pages. One that was not fatal has cost a transaction. Told as they come; what was counted at the boot is
-- old. Source: node problem detector, gpud (pcie_error in the kernel's log, which has no rule of its own).
CREATE ALERT host_pcie_errors
WITH (severity = 'warning', "label.class" = 'hardware',
      keep_firing_for = '10 minutes',
      summary = '{{ class }} {{ device }} ({{ pci_bus_id }}) on {{ host }}: {{ fatal }} fatal and {{ nonfatal }} other uncorrected PCIe errors in five minutes')
AS
SELECT host, pci_bus_id, last(class) AS class, last(device) AS device,
       coalesce(increase(fatal_errors_total), 0) AS fatal, coalesce(increase(nonfatal_errors_total), 0) AS nonfatal,
       CASE WHEN coalesce(increase(fatal_errors_total), 0) > 0 THEN 'critical' ELSE 'warning' END AS severity
FROM HOP(pcie, ts, INTERVAL '30 seconds', INTERVAL '5 minutes')
GROUP BY window_start, window_end, host, pci_bus_id
HAVING coalesce(increase(fatal_errors_total), 0) + coalesce(increase(nonfatal_errors_total), 0) > 0;
