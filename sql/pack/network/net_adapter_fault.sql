-- The driver of a network adapter (mlx5) reports a fault. That its health is compromised or that the error is unrecoverable
-- means that the adapter is gone until a reset, and with it every RDMA connection: that pages. Too little power, heat, a cable
-- or a command that timed out are warnings. Source: gpud's and NVSentinel's patterns.
CREATE ALERT net_adapter_fault
WITH (severity = 'warning', "label.class" = 'hardware',
      key = 'host, pci_bus_id',
      keep_firing_for = '10 minutes',
      summary = 'network adapter {{ device }} ({{ pci_bus_id }}) on {{ host }}: {{ message }}')
AS
SELECT host, pci_bus_id, device, kind, message,
       CASE WHEN message ~ 'health compromised|unrecoverable|[Ff]atal' THEN 'critical' ELSE 'warning' END AS severity
FROM kernel_event
WHERE kind = 'mlx5_fault';
