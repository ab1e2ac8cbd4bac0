"""Five questions to a fleet's history, in PySpark: python questions_spark.py FILES.csv"""

import csv
import sys

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

# The list that `tidewatch lake ls --table gpu --fresh --format csv` printed.
with open(sys.argv[1], newline="") as listing:
    files = [row["path"] for row in csv.DictReader(listing)]

spark = (
    SparkSession.builder.master("local[2]")
    .config("spark.sql.session.timeZone", "UTC")  # Else hours and days are those of this machine's zone.
    .config("spark.sql.shuffle.partitions", "2")
    .config("spark.ui.enabled", "false")
    .config("spark.ui.showConsoleProgress", "false")
    .getOrCreate()
)
gpu = spark.read.option("mergeSchema", "true").parquet(*files).withColumn("hour", F.date_trunc("hour", "ts"))
hour = F.date_format("hour", "yyyy-MM-dd'T'HH:mm:ss'Z'").alias("hour")
# Subqueries: collect() makes times of this machine's zone of them.
newest, first = gpu.select(F.max("ts")).scalar(), gpu.select(F.min("gpu_uuid")).scalar()
power, use = F.col("power_watts"), F.col("utilization_ratio")
moves = (F.min(power) < F.max(power)) & (F.min(use) < F.max(use))


def answer(name, table):
    rows = table.collect()
    print(f"# {name}")
    lines = csv.writer(sys.stdout, lineterminator="\n")
    lines.writerow(table.columns)
    lines.writerows(rows)


answer(
    "p99 temperature per host and hour",
    gpu.groupBy("host", hour)
    .agg(F.round(F.percentile("temperature_celsius", F.lit(0.99)), 3).alias("p99"))
    .orderBy("host", "hour"),
)
answer(
    "ten hottest GPUs of the day",
    gpu.where((F.col("ts") >= F.date_trunc("day", newest)) & F.col("temperature_celsius").isNotNull())
    .groupBy("gpu_uuid")
    .agg(F.max("temperature_celsius").alias("hottest"))
    .orderBy(F.desc("hottest"), "gpu_uuid")
    .limit(10),
)
answer(
    "one GPU, one hour",
    gpu.where((F.col("gpu_uuid") == first) & (F.col("ts") >= F.date_trunc("hour", newest)))
    .groupBy("gpu_uuid")
    .agg(F.count("*").alias("samples"), F.round(F.avg(power), 3).alias("power")),
)
answer(
    "power against utilisation per GPU",
    gpu.groupBy("gpu_uuid")
    .agg(F.round(F.corr(power, use), 3).alias("correlation"), moves.alias("moves"))
    .where("moves")
    .drop("moves")
    .orderBy("gpu_uuid"),
)
answer(
    "hourly rollup of the fleet",
    gpu.groupBy("host", hour)
    .agg(F.round(F.avg(power), 3).alias("power"), F.max("temperature_celsius").alias("hottest"))
    .orderBy("host", "hour"),
)
