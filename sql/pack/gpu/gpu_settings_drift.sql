-- A GPU is set otherwise than the others of its model: another power limit, MIG on or off, or no ECC counters, which is ECC
-- off. A power limit left over from a test makes one rank slow for weeks. A setting drifts when nine in ten GPUs of a model (of
-- ten and more) have one value and this one has another. Persistence mode, VBIOS and driver are in no table. Source: gpud, gcm
-- and Azure compare the same; the share is ours.
CREATE ALERT gpu_settings_drift
WITH (severity = 'warning', "label.class" = 'performance',
      key = 'host, gpu_uuid, setting', no_data = 'resolve',
      every = '1 minute', over = '2 minutes', for = '10 minutes',
      summary = 'GPU {{ gpu_uuid }} on {{ host }}: {{ setting }} is {{ own }} as on {{ alike }} of {{ gpus }} GPUs of its model, {{ usual }} have another')
AS
WITH found AS (
  SELECT host, gpu_uuid, max(gpu_name) AS gpu_name,
         CAST(round(max(power_limit_watts)) AS BIGINT) AS power_limit,
         count(mig_uuid) > 0 AS mig, count(ecc_corrected_volatile_total) > 0 AS ecc
  FROM gpu
  GROUP BY host, gpu_uuid),
settings AS (
  SELECT host, gpu_uuid, gpu_name, 'power limit' AS setting, CAST(power_limit AS VARCHAR) || ' W' AS own
  FROM found WHERE NOT mig
  UNION ALL
  SELECT host, gpu_uuid, gpu_name, 'MIG', CASE WHEN mig THEN 'on' ELSE 'off' END FROM found
  UNION ALL
  SELECT host, gpu_uuid, gpu_name, 'ECC', CASE WHEN ecc THEN 'on' ELSE 'off' END FROM found WHERE NOT mig),
counted AS (
  SELECT host, gpu_uuid, gpu_name, setting, own,
         count(*) OVER (PARTITION BY gpu_name, setting) AS gpus,
         count(*) OVER (PARTITION BY gpu_name, setting, own) AS alike
  FROM settings
  WHERE own IS NOT NULL AND gpu_name IS NOT NULL),
compared AS (
  SELECT host, gpu_uuid, setting, own, gpus, alike, max(alike) OVER (PARTITION BY gpu_name, setting) AS usual
  FROM counted)
SELECT host, gpu_uuid, setting, own, gpus, alike, usual
FROM compared
WHERE gpus >= 10 AND alike < usual
  AND usual >= gpus * setting('gpu_settings_drift_ratio');
