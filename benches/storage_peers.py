"""What a sample costs at rest: the same rows in our lake, in Prometheus and in VictoriaMetrics.

    target/python/bin/python benches/storage_peers.py LAKE_FOLDER [--tmp FOLDER]

Any Python that has duckdb does; .ci/install makes this one. LAKE_FOLDER is a data folder in which nothing runs; of it
lake/gpu/dt=*/*.parquet is read. Debian's packages prometheus (for promtool) and victoria-metrics must be there.

A sample is one value, not NULL, of a number or a flag that is none of the columns that say which GPU it is of. Bytes are
lengths of files, added up:

  tidewatch        public Parquet files as they are: all columns, also the texts, with footers and page indexes
  Prometheus       blocks that `promtool tsdb create-blocks-from openmetrics` makes: chunks, index, meta.json, tombstones
  VictoriaMetrics  data and indexdb after /internal/force_merge and a clean stop, without its cache

A column is a metric, gpu_<column>, with the labels host, gpu_uuid and, where there is one, mig_uuid. The peers get no other
text, and ts in whole milliseconds. They get the rows in pieces of two hours, aligned as Prometheus aligns its blocks, so
that a piece is a block; its text, some 90 bytes a sample, lies in the temporary folder (TMPDIR, or --tmp) until both have it.
That each of them holds as many samples as we counted is checked.
"""

import argparse
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import duckdb

PIECE_MS = 2 * 3_600 * 1_000
NOT_SAMPLES = {"ts", "host", "gpu_uuid", "mig_uuid", "gpu_index", "gpu_name", "pci_bus_id", "job"}
NUMBERS = {"BIGINT", "INTEGER", "UBIGINT", "DOUBLE", "FLOAT", "BOOLEAN"}
PATIENCE_SECONDS = 600


class Lake:
    """The public files of table gpu."""

    def __init__(self, folder):
        files = sorted(folder.glob("lake/gpu/dt=*/*.parquet"))
        if not files:
            sys.exit(f"{folder}: no lake/gpu/dt=*/*.parquet")
        self.bytes = sum(file.stat().st_size for file in files)
        self.db = duckdb.connect(config={"threads": 2})
        self.db.read_parquet([str(file) for file in files], union_by_name=True, hive_partitioning=False).create_view("gpu")
        kinds = {name: kind for name, kind, *_ in self.db.sql("DESCRIBE gpu").fetchall()}
        self.columns = [name for name, kind in kinds.items() if kind in NUMBERS and name not in NOT_SAMPLES]
        self.samples = self.ask(f"SELECT {' + '.join(f'count({column})' for column in self.columns)} FROM gpu")[0][0]

    def ask(self, question):
        return self.db.sql(question).fetchall()

    def pieces(self):
        """When pieces begin that have rows, milliseconds."""
        start = f"epoch_ms(ts) // {PIECE_MS} * {PIECE_MS}"
        return [start for start, in self.ask(f"SELECT DISTINCT {start} AS start FROM gpu ORDER BY start")]

    def write_text(self, start, path):
        """A piece as OpenMetrics, series by series."""
        with path.open("w") as text:
            for column in self.columns:
                # 'true' is no number for the peers.
                value = f"CASE {column}::VARCHAR WHEN 'true' THEN '1' WHEN 'false' THEN '0' ELSE {column}::VARCHAR END"
                series = f"""'gpu_{column}{{host="' || host || '",gpu_uuid="' || gpu_uuid
                    || coalesce('",mig_uuid="' || mig_uuid, '') || '"}} '"""
                texts = self.ask(f"""
                    SELECT string_agg(series || value || printf(' %d.%03d', ms // 1000, ms % 1000) || chr(10), '' ORDER BY ms)
                    FROM (SELECT epoch_ms(ts) AS ms, {series} AS series, {value} AS value FROM gpu WHERE {column} IS NOT NULL)
                    WHERE ms >= {start} AND ms < {start + PIECE_MS} GROUP BY series ORDER BY series""")
                text.writelines(lines for lines, in texts)
            text.write("# EOF\n")


class VictoriaMetrics:
    """A server of its own, empty at first."""

    def __init__(self, folder):
        self.folder = folder
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.process = subprocess.Popen(
            ["victoria-metrics", f"-storageDataPath={folder}", f"-httpListenAddr=127.0.0.1:{self.port}",
             "-retentionPeriod=100y", "-loggerLevel=ERROR"],
            # With more threads it is chance which series become neighbours and share their timestamps: up to a tenth of all.
            env={**os.environ, "GOMAXPROCS": "1"})

    def request(self, method, path, body=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_SECONDS)
        try:
            connection.request(method, path, body)
            response = connection.getresponse()
            text = response.read().decode()
        finally:
            connection.close()
        if response.status >= 300:
            raise RuntimeError(f"{path}: {response.status} {text}")
        return text

    def answers(self):
        if self.process.poll() is not None:
            sys.exit("victoria-metrics has ended")
        try:
            return self.request("GET", "/health") == "OK"
        except OSError:
            return False

    def metric(self, start):
        """The sum of its own metrics whose lines start so."""
        values = re.findall(rf"^{re.escape(start)}\S* (\S+)$", self.request("GET", "/metrics"), re.MULTILINE)
        return sum(float(value) for value in values)

    def settle(self, samples):
        """Waits until it holds so many samples, those of each month in one part."""
        def holds():
            self.request("GET", "/internal/force_flush")
            return self.metric('vm_rows{type="storage/') == samples
        wait_until(holds, f"VictoriaMetrics holds {samples:,} samples")
        months = len(list(self.folder.glob("data/small/????_??")))
        self.request("GET", "/internal/force_merge")
        wait_until(lambda: self.metric('vm_parts{type="storage/') <= months, "VictoriaMetrics has merged")
        assert holds(), "VictoriaMetrics lost samples when it merged"

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def wait_until(holds, what):
    end = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        if time.monotonic() > end:
            sys.exit(f"not in {PATIENCE_SECONDS} s: {what}")
        time.sleep(0.2)


def bytes_below(*folders):
    return sum(file.stat().st_size for folder in folders for file in folder.rglob("*") if file.is_file())


def version(package):
    return subprocess.run(["dpkg-query", "-Wf${Version}", package], check=True, capture_output=True, text=True).stdout


def measure(lake, folder):
    blocks, victoria, text = folder / "blocks", folder / "victoria", folder / "text"
    server = VictoriaMetrics(victoria)
    try:
        wait_until(server.answers, "VictoriaMetrics answers")
        for start in lake.pieces():
            lake.write_text(start, text)
            promtool = ["promtool", "tsdb", "create-blocks-from", "--quiet", "openmetrics", text, blocks]
            subprocess.run(promtool, check=True)
            with text.open("rb") as body:
                server.request("POST", "/api/v1/import/prometheus", body)
            text.unlink()
        server.settle(lake.samples)
    finally:
        server.stop()
    metas = [json.loads(meta.read_text()) for meta in blocks.glob("*/meta.json")]
    held = sum(meta["stats"]["numSamples"] for meta in metas)
    assert held == lake.samples, f"Prometheus holds {held} samples of {lake.samples}"
    return [
        ("tidewatch, public Parquet", lake.bytes),
        (f"Prometheus {version('prometheus')}, {len(metas)} blocks", bytes_below(blocks)),
        ("- chunks", bytes_below(*blocks.glob("*/chunks"))),
        ("- index", sum(index.stat().st_size for index in blocks.glob("*/index"))),
        (f"VictoriaMetrics {version('victoria-metrics')}", bytes_below(victoria / "data", victoria / "indexdb")),
        ("- data", bytes_below(victoria / "data")),
        ("- indexdb", bytes_below(victoria / "indexdb")),
    ]


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("lake", type=Path, metavar="LAKE_FOLDER")
    arguments.add_argument("--tmp", help="where the temporary folder is made")
    options = arguments.parse_args()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))  # So that what was started is ended.
    lake = Lake(options.lake)
    with tempfile.TemporaryDirectory(prefix="storage_peers.", dir=options.tmp) as folder:
        sizes = measure(lake, Path(folder))
    print("| store | samples | bytes | bytes per sample |\n|---|---|---|---|")
    for store, size in sizes:
        print(f"| {store} | {lake.samples:,} | {size:,} | {size / lake.samples:.3f} |")


main()
