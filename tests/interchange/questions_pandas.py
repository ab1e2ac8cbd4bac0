"""Five questions to a fleet's history, in pandas: python questions_pandas.py FILES.csv"""

import sys

import pandas as pd
import pyarrow.dataset as ds
import pyarrow.parquet as pq

# The list that `tidewatch lake ls --table gpu --fresh --format csv` printed.
files = pd.read_csv(sys.argv[1])["path"].to_list()

# The newest file may have columns that older ones lack. All rows come into memory: only the columns that are asked for.
columns = ["ts", "host", "gpu_uuid", "temperature_celsius", "power_watts", "utilization_ratio"]
gpu = ds.dataset(files, schema=pq.read_schema(files[-1])).to_table(columns=columns).to_pandas()
gpu["hour"] = gpu["ts"].dt.floor("h")
newest = gpu["ts"].max()


def answer(name, table):
    print(f"# {name}")
    print(table.to_csv(date_format="%Y-%m-%dT%H:%M:%SZ"), end="")


by_hour = gpu.groupby(["host", "hour"], dropna=False)
answer("p99 temperature per host and hour", by_hour["temperature_celsius"].quantile(0.99).round(3).rename("p99"))

today = gpu[gpu["ts"] >= newest.floor("D")].dropna(subset="temperature_celsius")
hottest = today.groupby("gpu_uuid")["temperature_celsius"].max().rename("hottest").reset_index()
hottest = hottest.sort_values(["hottest", "gpu_uuid"], ascending=[False, True]).head(10)
answer("ten hottest GPUs of the day", hottest.set_index("gpu_uuid"))

one = gpu[(gpu["gpu_uuid"] == gpu["gpu_uuid"].min()) & (gpu["ts"] >= newest.floor("h"))]
one = one.groupby("gpu_uuid").agg(samples=("ts", "size"), power=("power_watts", "mean"))
answer("one GPU, one hour", one.round(3))

by_gpu = gpu.groupby("gpu_uuid", dropna=False)[["power_watts", "utilization_ratio"]]
correlation = by_gpu.apply(lambda rows: rows["power_watts"].corr(rows["utilization_ratio"]))
correlation = correlation[(by_gpu.min() < by_gpu.max()).all(axis=1)]
answer("power against utilisation per GPU", correlation.round(3).rename("correlation"))

rollup = by_hour.agg(power=("power_watts", "mean"), hottest=("temperature_celsius", "max"))
answer("hourly rollup of the fleet", rollup.round(3))
