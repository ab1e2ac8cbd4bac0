-- The NVMe driver gave a drive up (it does not answer after a reset, or the controller is dead): everything on it is gone until
-- somebody looks. On a GPU node that is the scratch space or the system. Source: gpud, node problem detector.
CREATE ALERT disk_nvme_failure
WITH (severity = 'critical', "label.class" = 'hardware',
      key = 'host, device',
      keep_firing_for = '1 hour',
      summary = 'NVMe drive {{ device }} ({{ pci_bus_id }}) on {{ host }} failed: {{ message }}')
AS
SELECT host, device, pci_bus_id, kind, message
FROM kernel_event
WHERE kind = 'nvme_failure';
