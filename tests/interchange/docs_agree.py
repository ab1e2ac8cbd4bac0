#!/usr/bin/env python3
"""Checks that docs/interchange.md shows each questions file of this folder as it is; with --write it is made so."""

import pathlib
import re
import sys

HERE = pathlib.Path(__file__).resolve().parent
PAGE = HERE.parent.parent / "docs" / "interchange.md"
# The file's name in a line of its own, then its text.
SHOWN = re.compile(r"(`tests/interchange/(questions[^`]*)`:\n\n```[a-z]+\n)(.*?)(?=^```$)", re.DOTALL | re.MULTILINE)

page = PAGE.read_text()
shown = {match[2] for match in SHOWN.finditer(page)}
files = {path.name for path in HERE.glob("questions*")}
if shown != files:
    sys.exit(f"only on the page or only in the folder: {', '.join(sorted(shown ^ files))}")
right = SHOWN.sub(lambda match: match[1] + (HERE / match[2]).read_text(), page)
if "--write" in sys.argv[1:]:
    PAGE.write_text(right)
elif right != page:
    sys.exit("docs/interchange.md shows other text than the files have: run tests/interchange/docs_agree.py --write")
else:
    print(f"the page shows {len(files)} files as they are")
