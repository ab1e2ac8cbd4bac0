"""Five questions to a fleet's history, in pandas: python questions_pandas.py FILES.csv"""

import sys

import pandas as pd

# The list that `tidewatch lake ls --table gpu --fresh --format csv` printed.
files = pd.read_csv(sys.argv[1])["path"]

# All rows come into memory: take the columns that are asked for.
columns = ["ts", "host", "gpu_uuid", "temperature_celsius", "power_watts", "utilization_ratio"]
gpu = pd.concat([pd.read_parquet(file, columns=columns) for file in files])
gpu["hour"] = gpu["ts"].dt.floor("h")
newest = gpu["ts"].max()


def answer(name, table):
    print(f"# {name}")
    print(table.round(3).to_csv(index=False, date_format="%Y-%m-%dT%H:%M:%SZ"), end="")


by_hour = gpu.groupby(["host", "hour"], dropna=False)
by_gpu = gpu.groupby("gpu_uuid", dropna=False)

answer("p99 temperature per host and hour", by_hour["temperature_celsius"].quantile(0.99).rename("p99").reset_index())

today = gpu[gpu["ts"] >= newest.floor("D")].dropna(subset="temperature_celsius")
hottest = today.groupby("gpu_uuid")["temperature_celsius"].max().rename("hottest").reset_index()
answer("ten hottest GPUs of the day", hottest.sort_values(["hottest", "gpu_uuid"], ascending=[False, True]).head(10))

one = gpu[(gpu["gpu_uuid"] == gpu["gpu_uuid"].min()) & (gpu["ts"] >= newest.floor("h"))]
answer(
    "one GPU, one hour",
    one.groupby("gpu_uuid").agg(samples=("ts", "size"), power=("power_watts", "mean")).reset_index(),
)

correlation = by_gpu[["power_watts", "utilization_ratio"]].apply(lambda rows: rows["power_watts"].corr(rows["utilization_ratio"]))
answer("power against utilisation per GPU", correlation.rename("correlation").reset_index())

answer(
    "hourly rollup of the fleet",
    by_hour.agg(power=("power_watts", "mean"), hottest=("temperature_celsius", "max")).reset_index(),
)
