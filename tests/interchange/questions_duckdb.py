"""Five questions to a fleet's history, in DuckDB: python questions_duckdb.py FILES.csv"""

import csv
import sys

import duckdb

# The list that `tidewatch lake ls --table gpu --fresh --format csv` printed.
with open(sys.argv[1], newline="") as listing:
    files = [row["path"] for row in csv.DictReader(listing)]

db = duckdb.connect()
db.execute("SET TimeZone = 'UTC'")  # Else hours and days are those of this machine's zone.
db.read_parquet(files, union_by_name=True).create_view("gpu")


def answer(name, question):
    asked = db.sql(question)
    print(f"# {name}")
    lines = csv.writer(sys.stdout, lineterminator="\n")
    lines.writerow(asked.columns)
    lines.writerows(asked.fetchall())


answer("p99 temperature per host and hour", """
    SELECT host, strftime(date_trunc('hour', ts), '%Y-%m-%dT%H:%M:%SZ') AS hour,
           round(quantile_cont(temperature_celsius, 0.99), 3) AS p99
    FROM gpu GROUP BY ALL ORDER BY host, hour""")

answer("ten hottest GPUs of the day", """
    SELECT gpu_uuid, max(temperature_celsius) AS hottest
    FROM gpu WHERE ts >= (SELECT date_trunc('day', max(ts)) FROM gpu) AND temperature_celsius IS NOT NULL
    GROUP BY gpu_uuid ORDER BY hottest DESC, gpu_uuid LIMIT 10""")

answer("one GPU, one hour", """
    SELECT gpu_uuid, count(*) AS samples, round(avg(power_watts), 3) AS power
    FROM gpu WHERE gpu_uuid = (SELECT min(gpu_uuid) FROM gpu) AND ts >= (SELECT date_trunc('hour', max(ts)) FROM gpu)
    GROUP BY gpu_uuid""")

answer("power against utilisation per GPU", """
    SELECT gpu_uuid, round(corr(power_watts, utilization_ratio), 3) AS correlation
    FROM gpu GROUP BY gpu_uuid
    HAVING min(power_watts) < max(power_watts) AND min(utilization_ratio) < max(utilization_ratio) ORDER BY gpu_uuid""")

answer("hourly rollup of the fleet", """
    SELECT host, strftime(date_trunc('hour', ts), '%Y-%m-%dT%H:%M:%SZ') AS hour,
           round(avg(power_watts), 3) AS power, max(temperature_celsius) AS hottest
    FROM gpu GROUP BY ALL ORDER BY host, hour""")
