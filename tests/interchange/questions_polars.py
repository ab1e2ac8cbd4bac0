"""Five questions to a fleet's history, in Polars: python questions_polars.py FILES.csv"""

import sys

import polars as pl

# The list that `tidewatch lake ls --table gpu --fresh --format csv` printed.
files = pl.read_csv(sys.argv[1])["path"].to_list()

# The newest file may have columns that older ones lack.
gpu = pl.scan_parquet(files, schema=pl.read_parquet_schema(files[-1]), missing_columns="insert", extra_columns="ignore")
hour = pl.col("ts").dt.truncate("1h").alias("hour")
newest = pl.col("ts").max()
power, use, temperature = pl.col("power_watts"), pl.col("utilization_ratio"), pl.col("temperature_celsius")


def answer(name, question):
    table = question.collect()
    print(f"# {name}")
    print(table.write_csv(datetime_format="%Y-%m-%dT%H:%M:%SZ"), end="")


answer(
    "p99 temperature per host and hour",
    gpu.group_by("host", hour)
    .agg(temperature.quantile(0.99, interpolation="linear").round(3).alias("p99"))
    .sort("host", "hour"),
)
answer(
    "ten hottest GPUs of the day",
    gpu.filter(pl.col("ts") >= newest.dt.truncate("1d"), temperature.is_not_null())
    .group_by("gpu_uuid")
    .agg(temperature.max().alias("hottest"))
    .sort("hottest", "gpu_uuid", descending=[True, False])
    .head(10),
)
answer(
    "one GPU, one hour",
    gpu.filter(pl.col("gpu_uuid") == pl.col("gpu_uuid").min(), pl.col("ts") >= newest.dt.truncate("1h"))
    .group_by("gpu_uuid")
    .agg(pl.len().alias("samples"), power.mean().round(3).alias("power")),
)
answer(
    "power against utilisation per GPU",
    gpu.group_by("gpu_uuid")
    .having(power.min() < power.max(), use.min() < use.max())
    .agg(pl.corr(power, use).round(3).alias("correlation"))
    .sort("gpu_uuid"),
)
answer(
    "hourly rollup of the fleet",
    gpu.group_by("host", hour)
    .agg(power.mean().round(3).alias("power"), temperature.max().alias("hottest"))
    .sort("host", "hour"),
)
