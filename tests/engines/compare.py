#!/usr/bin/env python3
"""Compares what Tidewatch's engine says with what two other engines say, on what all of them can express: aggregates over sliding windows.

The same simulated rows go through `tidewatch backtest`, through DuckDB (the windows expanded by a join) and, where PyFlink can be imported,
through Flink SQL's own HOP. Of the others' values the changes of each alert are derived as the lifecycle has them (firing when the condition
holds, resolved when rows came and it does not, unchanged without rows) and compared: when, which group, which way, and the value.

    compare.py TIDEWATCH [--gpus 128] [--duration 2h30m] [--engines duckdb,flink] [--rules avg_temperature,max_power]

Exit code: 0 all agree, 1 they do not, 2 an engine that was asked for is not there.
"""

import argparse
import datetime
import json
import math
import pathlib
import subprocess
import sys
import tempfile
import time

# Name, aggregate (all three read it), slide and size in seconds; the group columns; the share of values that lies below the threshold.
RULES = [
    ("avg_temperature", "avg(temperature_celsius)", 10, 60, ["host", "gpu_uuid"], 0.9),
    ("max_power", "max(power_watts)", 10, 60, ["host", "gpu_uuid"], 0.8),
    ("min_power_of_host", "min(power_watts)", 10, 120, ["host"], 0.5),
    ("sum_power_of_host", "sum(power_watts)", 30, 300, ["host"], 0.5),
    ("spread_temperature", "stddev_samp(temperature_celsius)", 10, 60, ["host", "gpu_uuid"], 0.9),
    ("spread_of_all_power", "var_pop(power_watts)", 10, 60, ["host"], 0.7),
    ("hot_rows", "count(*) FILTER (WHERE temperature_celsius > 60)", 10, 90, ["host", "gpu_uuid"], 0.9),
    ("odd_window", "avg(utilization_ratio)", 7, 20, ["host", "gpu_uuid"], 0.8),
    ("long_window", "avg(power_watts)", 60, 3600, ["host"], 0.5),
]
DELAY = 2
MICROS = 1_000_000


def rules_text(thresholds):
    text = ""
    for name, aggregate, slide, size, groups, _ in RULES:
        keys = ", ".join(groups)
        text += (
            f"CREATE ALERT {name} WITH (delay = '{DELAY}s') AS SELECT {keys}, {aggregate} AS a\n"
            f"FROM HOP(gpu, ts, INTERVAL '{slide} seconds', INTERVAL '{size} seconds')\n"
            f"GROUP BY window_start, window_end, {keys} HAVING {aggregate} > {thresholds[name]!r};\n"
        )
    return text


def from_duckdb(rows):
    import duckdb

    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute(f"CREATE TABLE gpu AS SELECT epoch_us(ts) AS us, * FROM read_parquet('{rows}')")
    found = {}
    for name, aggregate, slide, size, groups, _ in RULES:
        keys = ", ".join(groups)
        # Windows end at multiples of the slide after their start; a row is in each that starts in (ts - size, ts].
        sql = f"""
            SELECT start + {size * MICROS} AS window_end, {keys}, {aggregate} AS a
            FROM (SELECT gpu.*, unnest(range(
                    (floor((us - {size * MICROS})::DOUBLE / {slide * MICROS})::BIGINT + 1) * {slide * MICROS}, us + 1, {slide * MICROS})) AS start FROM gpu)
            GROUP BY start, {keys}"""
        found[name] = {(row[0], row[1:-1]): row[-1] for row in connection.execute(sql).fetchall()}
    newest = connection.execute("SELECT max(us) FROM gpu").fetchone()[0]
    return found, newest


def from_flink(rows, folder):
    import duckdb
    from pyflink.table import EnvironmentSettings, TableEnvironment

    csv = pathlib.Path(folder) / "gpu.csv"
    columns = "host, gpu_uuid, temperature_celsius, power_watts, utilization_ratio"
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute(
        f"COPY (SELECT strftime(ts, '%Y-%m-%d %H:%M:%S.%g') AS ts, {columns} FROM read_parquet('{rows}')) TO '{csv}' (HEADER false)"
    )
    settings = EnvironmentSettings.in_batch_mode()
    tables = TableEnvironment.create(settings)
    tables.get_config().set("parallelism.default", "2")
    tables.get_config().set("table.local-time-zone", "UTC")
    tables.execute_sql(
        f"""CREATE TABLE gpu (ts TIMESTAMP(3), host STRING, gpu_uuid STRING, temperature_celsius DOUBLE, power_watts DOUBLE,
            utilization_ratio DOUBLE) WITH ('connector' = 'filesystem', 'path' = 'file://{csv}', 'format' = 'csv',
            'csv.null-literal' = '')"""
    )
    found = {}
    epoch = datetime.datetime(1970, 1, 1)
    for name, aggregate, slide, size, groups, _ in RULES:
        if size % slide or size // slide > 12:
            continue  # Flink wants windows that are whole slides, and copies each row into all of them.
        keys = ", ".join(groups)
        sql = f"""SELECT window_end, {keys}, {aggregate} AS a FROM TABLE(
            HOP(TABLE gpu, DESCRIPTOR(ts), INTERVAL '{slide}' SECONDS, INTERVAL '{size}' SECONDS({len(str(size))})))
            GROUP BY window_start, window_end, {keys}"""
        values = {}
        with tables.execute_sql(sql).collect() as results:
            for row in results:
                row = list(row)
                end = round((row[0] - epoch).total_seconds() * MICROS)
                values[(end, tuple(row[1:-1]))] = row[-1]
        found[name] = values
        print(f"  flink, {name}: {len(values)} windows of groups", flush=True)
    return found


def changes(values, threshold, newest):
    """Changes of the alerts of one rule: {(end, key, state): value}."""
    by_key = {}
    for (end, key), value in values.items():
        if end <= newest - DELAY * MICROS:
            by_key.setdefault(key, []).append((end, value))
    found = {}
    for key, windows in by_key.items():
        firing = False
        for end, value in sorted(windows, key=lambda window: window[0]):
            holds = value is not None and value > threshold
            if holds != firing:
                found[(end, key, "firing" if holds else "resolved")] = value
            firing = holds
    return found


def from_tidewatch(program, rows, text, folder):
    rules = pathlib.Path(folder) / "rules.sql"
    rules.write_text(text)
    begun = time.monotonic()
    ran = subprocess.run(
        [program, "backtest", "--rules", str(rules), "--input", f"gpu={rows}", "--format", "json"],
        capture_output=True, text=True, check=True)
    print(f"tidewatch: {time.monotonic() - begun:.1f} s")
    groups = {name: keys for name, _, _, _, keys, _ in RULES}
    found = {name: {} for name in groups}
    for line in ran.stdout.splitlines():
        change = json.loads(line)
        if change["from_state"] == change["to_state"]:
            continue  # Marked stale, and heard again: others have no word for it.
        at = datetime.datetime.fromisoformat(change["ts"].replace("Z", "+00:00"))
        end = round((at - datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)).total_seconds() * MICROS)
        key = tuple(change["labels"][column] for column in groups[change["rule"]])
        found[change["rule"]][(end, key, change["to_state"])] = change["value"]
    return found


def compare(engine, theirs, ours, thresholds, newest):
    wrong = 0
    total = 0
    for name, values in theirs.items():
        expected = changes(values, thresholds[name], newest)
        total += len(expected)
        for change in sorted(set(expected) ^ set(ours[name]))[:5]:
            print(f"  {engine}, {name}: {'only there' if change in expected else 'only ours'}: {change}")
        wrong += len(set(expected) ^ set(ours[name]))
        for change in set(expected) & set(ours[name]):
            there, here = expected[change], ours[name][change]
            if change[2] == "firing" and not math.isclose(there, here, rel_tol=1e-9, abs_tol=1e-9):
                print(f"  {engine}, {name}: {change}: {here}, there {there}")
                wrong += 1
    windows = sum(len(values) for values in theirs.values())
    print(f"{engine}: {len(theirs)} rules, {windows} windows of groups, {total} changes of alerts, {wrong} differences")
    return wrong, total


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tidewatch")
    parser.add_argument("--gpus", default="128")
    parser.add_argument("--duration", default="2h30m")
    parser.add_argument("--engines", default="duckdb,flink")
    parser.add_argument("--rules", help="only these, comma separated: Flink takes minutes for each over a million rows")
    arguments = parser.parse_args()
    if arguments.rules:
        RULES[:] = [rule for rule in RULES if rule[0] in arguments.rules.split(",")]
    engines = arguments.engines.split(",")
    with tempfile.TemporaryDirectory() as folder:
        rows = pathlib.Path(folder) / "fleet.parquet"
        subprocess.run(
            [arguments.tidewatch, "simulate", "--noise", "low", "--gpus", arguments.gpus, "--duration", arguments.duration,
             "--out", str(rows)], check=True, stderr=subprocess.DEVNULL)
        try:
            begun = time.monotonic()
            duckdb_values, newest = from_duckdb(rows)
            print(f"duckdb: {time.monotonic() - begun:.1f} s")
        except ImportError as error:
            print(error, file=sys.stderr)
            sys.exit(2)
        thresholds = {}
        for name, _, _, _, _, share in RULES:
            values = sorted(value for value in duckdb_values[name].values() if value is not None)
            # Between two values that are apart: no engine's last digit decides.
            at = min(int(len(values) * share), len(values) - 2)
            while at + 1 < len(values) - 1 and values[at + 1] - values[at] < 1e-7 * max(1.0, abs(values[at])):
                at += 1
            thresholds[name] = (values[at] + values[at + 1]) / 2
        ours = from_tidewatch(arguments.tidewatch, rows, rules_text(thresholds), folder)
        wrong, total = compare("duckdb", duckdb_values, ours, thresholds, newest)
        if "flink" in engines:
            try:
                begun = time.monotonic()
                flink_values = from_flink(rows, folder)
                print(f"flink: {time.monotonic() - begun:.1f} s")
            except ImportError as error:
                print(error, file=sys.stderr)
                sys.exit(2)
            more, _ = compare("flink", flink_values, ours, thresholds, newest)
            wrong += more
        if total < 100:
            print(f"only {total} changes: that shows little")
            wrong += 1
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
