"""The same tiny models through llm-compressor, judged by the same code."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from stages.weights.safetensors_file import read_header
from tests.families.case import Case
from tests.families.judge import Row, Subject, judge, measured, pattern
from tests.families.schemes import SCHEMES

PEER_CASES = (
    *("llama", "qwen3_moe", "mixtral", "deepseek_v3", "glm4_moe", "gpt_oss"),
    *("granitemoehybrid", "qwen3_next", "minimax_m2", "jamba", "phimoe", "olmoe"),
)
PEER_SCHEMES = ("fp8_dynamic", "w4a16")
SCRIPT = Path(__file__).with_name("peer_run.py")
SECONDS = 900


def peer_rows(cases: Iterable[Case], python: str) -> Iterator[Row]:
    """Rows {"case", "scheme", "ours", "peer"}: what each program made of the model and its error.

    Both see the tokens that presswork cut from the text.
    """
    for case in cases:
        folder = Path(tempfile.mkdtemp(prefix=f"peer-{case.name}-"))
        try:
            yield from _case(Subject.write(case, folder), folder, python)
        finally:
            shutil.rmtree(folder)


def _case(subject: Subject, folder: Path, python: str) -> Iterator[Row]:
    ours = {name: judge(subject, SCHEMES[name]) for name in PEER_SCHEMES}
    tokens = next((folder / "store").rglob("tokens.safetensors"), None)
    if tokens is None:
        return
    jobs = [
        {
            "model": str(folder / "model"),
            "cls": subject.case.cls or "AutoModelForCausalLM",
            "scheme": name,
            "tokens": str(tokens),
            "out": str(folder / f"peer-{name}"),
        }
        for name in PEER_SCHEMES
    ]
    for job in jobs:
        (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
        _run([python, str(SCRIPT), str(folder / "job.json")])
    for name in PEER_SCHEMES:
        peer = folder / f"peer-{name}"
        yield {
            "case": subject.case.name,
            "scheme": name,
            "ours": _short(ours[name]) | {"names": _names(folder / name / "checkpoint")},
            "peer": _short(_theirs(subject, name, peer)) | {"names": _names(peer)},
        }


def _run(command: list[str]) -> None:
    subprocess.run(
        command,
        check=True,
        timeout=SECONDS,
        capture_output=True,
        env={**os.environ, "PYTHONPATH": ""},
    )


def _theirs(subject: Subject, scheme: str, checkpoint: Path) -> Row:
    failed = checkpoint.with_name(f"{checkpoint.name}.error")
    if failed.exists():
        return {"verdict": "crash", "reason": failed.read_text(encoding="utf-8")}
    try:
        return measured(subject, SCHEMES[scheme], checkpoint)
    except Exception as raised:
        return {"verdict": "wrong", "reason": f"{type(raised).__name__}: {raised}"[:300]}


def _names(checkpoint: Path) -> list[str]:
    """The names of modules that a checkpoint holds compressed, with a star for each number."""
    files = checkpoint.glob("*.safetensors")
    stored = {name for file in files for name in read_header(file).places}
    ending = ".weight_scale"
    return sorted({pattern(n.removesuffix(ending)) for n in stored if n.endswith(ending)})


def _short(row: Row) -> Row:
    keys = ("verdict", "reason", "modules", "experts", "error", "transformers")
    return {key: row[key] for key in keys if key in row}
