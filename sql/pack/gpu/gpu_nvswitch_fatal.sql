-- An NVSwitch or the fabric manager reports a fatal error (SXid): the GPUs behind it can't reach each other, and jobs over them
-- hang or die until the switch and its GPUs are reset. Non-fatal SXids are common and page nobody. gpu_fabric_unhealthy tells
-- the state that follows on boards that know it. Source: gpud; NVIDIA's fabric manager guide says fatal or non-fatal in each
-- line.
CREATE ALERT gpu_nvswitch_fatal
WITH (severity = 'critical', "label.class" = 'hardware',
      key = 'host, kind, pci_bus_id',
      keep_firing_for = '10 minutes',
      summary = 'NVSwitch {{ pci_bus_id }} on {{ host }}: {{ message }}')
AS
SELECT host, kind, pci_bus_id, message
FROM kernel_event
WHERE kind = 'nvlink_fatal' OR (kind = 'sxid' AND message LIKE '%, Fatal%');
