"""All cases under all schemes; rows go to a JSON lines file as they are found."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

import transformers

from tests.families.case import Case
from tests.families.dense import DENSE
from tests.families.experts import EXPERTS
from tests.families.hybrid import HYBRID
from tests.families.judge import Row, Subject, judge, unjudged
from tests.families.multimodal import MULTIMODAL
from tests.families.schemes import Scheme
from tests.families.table import page

HERE = Path(__file__).parent
RESULTS = HERE / "results.jsonl"
PEER = HERE / "peer.jsonl"
PAGE = HERE.parents[1] / "stages" / "docs" / "models.md"

CASES: tuple[Case, ...] = (*DENSE, *EXPERTS, *HYBRID, *MULTIMODAL)


def rows_of(cases: Iterable[Case], schemes: Iterable[Scheme]) -> Iterator[Row]:
    """Judge every case under every scheme, in a temporary folder for each case."""
    quiet()
    schemes, made = list(schemes), versions()
    for case in cases:
        folder = Path(tempfile.mkdtemp(prefix=f"family-{case.name}-"))
        try:
            subject, why = _subject(case, folder)
            for scheme in schemes:
                if subject is None:
                    yield unjudged(case, scheme, why) | {"seconds": 0.0, "made": made}
                    continue
                began = time.perf_counter()
                row = judge(subject, scheme)
                seconds = round(time.perf_counter() - began, 1)
                yield row | {"seconds": seconds, "made": made}
        finally:
            shutil.rmtree(folder)


def _subject(case: Case, folder: Path) -> tuple[Subject | None, str]:
    """The model of a case; or why transformers' own class cannot be judged by."""
    try:
        return Subject.write(case, folder), ""
    except Exception as raised:  # whatever this release's class does
        return None, f"transformers' own class raises {type(raised).__name__}: {raised}"


def quiet() -> None:
    """No progress bars and warnings of transformers: there is a line for each result."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


def versions() -> dict[str, str]:
    """What the rows depend on: libraries, and the commit and day of this repository."""
    git = ["git", "-C", str(HERE), "log", "-1", "--format=%h of %cs"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    names = ("transformers", "compressed-tensors", "torch")
    return {name: version(name) for name in names} | {"presswork": commit}


def page_of(rows: Sequence[Row]) -> str:
    """The text of PAGE."""
    code = (HERE / "unpack.py").read_text(encoding="utf-8")
    return page(rows, read(PEER), unpacking=len(code.splitlines()))


def merged(old: Iterable[Row], new: Iterable[Row]) -> list[Row]:
    """Rows in the order of CASES; a new row takes the place of that of its case and scheme."""
    found = {(row["case"], row["scheme"]): row for row in [*old, *new]}
    order = {case.name: index for index, case in enumerate(CASES)}
    rows = [row for row in found.values() if row["case"] in order]
    return sorted(rows, key=lambda row: order[row["case"]])


def read(path: Path) -> list[Row]:
    """The rows of a JSON lines file; none where there is no file."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write(path: Path, rows: Iterable[Row]) -> None:
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text(text, encoding="utf-8")
