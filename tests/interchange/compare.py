#!/usr/bin/env python3
"""Compares what other engines say of a lake's files with what `tidewatch query` says.

    compare.py TIDEWATCH DATA_FOLDER [ENGINE...]

Each engine reads exactly the files that `tidewatch lake ls --fresh` lists. Its process has a zone half an hour off: who takes
local time for UTC is found out. While rows are committed there is nothing to compare: then the list is made anew.

Exit code: 0 all agree, 1 they do not, or with CI=true an engine is not there.
"""

import csv
import importlib.util
import io
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
PACKAGES = {"duckdb": ["duckdb"], "polars": ["polars"], "pandas": ["pandas", "pyarrow"], "spark": ["pyspark"]}


def said(*command, **options):
    return subprocess.run(command, capture_output=True, text=True, check=True, **options).stdout


def parts(text, mark):
    """What stands below each line `mark name`, by name."""
    return dict(part.split("\n", 1) for part in re.split(f"^{mark} ", text, flags=re.MULTILINE)[1:])


def lines_of(text):
    return list(csv.reader(io.StringIO(text)))


def from_tidewatch(program, data):
    questions = parts((HERE / "questions.sql").read_text(), "--")
    ask = [program, "query", "--data", data, "--format", "csv"]
    return {name: lines_of(said(*ask, question)) for name, question in questions.items()}


def from_engine(engine, files):
    elsewhere = os.environ | {"TZ": "Asia/Kolkata", "SPARK_LOCAL_IP": "127.0.0.1"}
    text = said(sys.executable, str(HERE / f"questions_{engine}.py"), files, env=elsewhere)
    return {name: lines_of(rows) for name, rows in parts(text, "#").items()}


def list_and_answers(program, data):
    """The list, and answers from before which no row came."""
    listing = None
    for _ in range(10):
        answers = from_tidewatch(program, data)
        before, listing = listing, said(program, "lake", "ls", "--table", "gpu", "--fresh", "--format", "csv", "--data", data)
        if before == listing:
            return listing, answers
    sys.exit("rows are being committed all the time: nothing to compare with")


def same(one, other):
    if one == other:
        return True
    try:
        # Sums of floats depend on their order: in the middle between two roundings the last digit, the third, is anybody's.
        return "." in one and abs(float(one) - float(other)) < 0.0011
    except ValueError:
        return False


def difference(ours, theirs):
    """The first one, or nothing."""
    if list(ours) != list(theirs):
        return f"asked {list(theirs)}, not {list(ours)}"
    for name in ours:
        if len(ours[name]) != len(theirs[name]):
            return f"{name}: {len(theirs[name])} lines, not {len(ours[name])}"
        for here, there in zip(ours[name], theirs[name]):
            if len(here) != len(there) or not all(map(same, here, there)):
                return f"{name}: {','.join(there)}, not {','.join(here)}"
    return None


def main():
    if len(sys.argv) < 3 or not set(sys.argv[3:]) <= set(PACKAGES):
        sys.exit(__doc__)
    program, data = shutil.which(sys.argv[1]) or sys.argv[1], str(pathlib.Path(sys.argv[2]).resolve())
    listing, ours = list_and_answers(program, data)
    if any(len(lines) < 2 for lines in ours.values()):
        sys.exit("a question has no answer: that shows nothing")
    wrong = False
    with tempfile.TemporaryDirectory() as folder:
        files = str(pathlib.Path(folder) / "files.csv")
        pathlib.Path(files).write_text(listing)
        for engine in sys.argv[3:] or PACKAGES:
            installed = all(map(importlib.util.find_spec, PACKAGES[engine])) and (engine != "spark" or shutil.which("java"))
            if not installed:
                print(f"{engine}: not installed, not compared", flush=True)
                wrong |= os.environ.get("CI") == "true"
                continue
            try:
                found = difference(ours, from_engine(engine, files))
            except subprocess.CalledProcessError as error:
                found = f"{error}\n{error.stderr}"
            wrong |= found is not None
            print(f"{engine}: {found or f'{len(ours)} answers agree'}", flush=True)
    sys.exit(wrong)


if __name__ == "__main__":
    main()
