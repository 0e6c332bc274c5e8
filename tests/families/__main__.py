"""`python -m tests.families [--only PATTERN] [--schemes NAME ...] [--write]`.

Judges tiny random models of every family; see stages/docs/models.md, which --write makes.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from tests.families.case import Case
from tests.families.drive import (
    CASES,
    PAGE,
    PEER,
    RESULTS,
    merged,
    page_of,
    quiet,
    read,
    rows_of,
    write,
)
from tests.families.peer import PEER_CASES, peer_rows
from tests.families.schemes import SCHEMES
from tests.families.table import line, peer_line, summary


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.families", description=__doc__)
    parser.add_argument("--only", default="", help="a regular expression that a case's name fits")
    parser.add_argument("--schemes", nargs="+", choices=SCHEMES, default=list(SCHEMES))
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--write", action="store_true", help="keep results and write the page")
    parser.add_argument("--peer", help="interpreter of an environment with llm-compressor 0.14")
    given = parser.parse_args()
    torch.set_num_threads(1)
    cases = [case for case in CASES if re.fullmatch(given.only or ".*", case.name)]
    if given.peer:
        return compare(cases, given)
    rows = read(given.results)
    for row in rows_of(cases, [SCHEMES[name] for name in given.schemes]):
        sys.stdout.write(line(row) + "\n")
        sys.stdout.flush()
        rows = merged(rows, [row])
        if given.write:
            write(given.results, rows)
    sys.stdout.write(summary(rows) + "\n")
    if given.write:
        PAGE.write_text(page_of(rows), encoding="utf-8")
    return 0


def compare(cases: Sequence[Case], given: argparse.Namespace) -> int:
    """The cases that llm-compressor is tried on, in both programs."""
    quiet()
    chosen = [case for case in cases if case.name in PEER_CASES]
    found = []
    for row in peer_rows(chosen, given.peer):
        sys.stdout.write(peer_line(row) + "\n")
        sys.stdout.flush()
        found.append(row)
        if given.write:
            kept = [
                r for r in read(PEER) if (r["case"], r["scheme"]) != (row["case"], row["scheme"])
            ]
            write(PEER, [*kept, row])
    if given.write:
        PAGE.write_text(page_of(read(given.results)), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
