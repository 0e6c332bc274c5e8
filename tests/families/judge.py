"""One case under one scheme: run the job, and judge the checkpoint by what stands outside of it."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shutil
import signal
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor
from transformers.pytorch_utils import Conv1D

from pipeline.errors import UserError
from tests.families.case import Case
from tests.families.job import run_job
from tests.families.layout import expert_matrices, is_expert, original_names
from tests.families.logits import error, load, logits, with_noise
from tests.families.schemes import Scheme
from tests.families.tiny import class_of, write
from tests.families.unpack import tensors_of, unpack
from tests.frozen.models import write_text

BEFORE = ("load", "patch", "outline", "tokens", "prove", "pairs")
"""Kinds of nodes that may run before a model is refused: none of them reads a batch."""

ADVICE = re.compile(r"modifier\.smoothquant\.pairs=\[[a-z,]+\]")
"""An override that is told where norms have no pairs, and that the driver follows."""

SECONDS = 150

ROUNDING = 0.05
"""Relative change of a weight that rounding to 8 bits stays far below, and scaling does not."""

ZEROS = 1.0
"""The error of logits that are all zero: what has it shows nothing, however large noise's is."""

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Subject:
    """A written tiny model: its folder, tensors on disk and logits in float32.

    `turned` are its modules that keep a weight [in, out].
    """

    case: Case
    folder: Path
    tensors: Mapping[str, Tensor]
    logits: Tensor
    architecture: str
    turned: frozenset[str]

    @classmethod
    def write(cls, case: Case, folder: Path) -> Subject:
        path = write(case, folder / "model")
        model = load(case, path)
        architecture = json.loads((path / "config.json").read_text())["architectures"][0]
        return cls(
            case=case,
            folder=folder,
            tensors=tensors_of(path),
            logits=logits(model),
            architecture=architecture,
            turned=frozenset(n for n, m in model.named_modules() if isinstance(m, Conv1D)),
        )

    def dense(self, tensors: Mapping[str, Tensor], name: str) -> Tensor:
        """The logits of the original class with other dense tensors of the original's names."""
        target = self.folder / name
        target.mkdir(exist_ok=True)
        for file in (self.folder / "model").glob("*config.json"):
            shutil.copy(file, target)
        save_file({n: t.contiguous() for n, t in tensors.items()}, target / "model.safetensors")
        found = logits(load(self.case, target))
        shutil.rmtree(target)
        return found

    def compress(self, scheme: Scheme, more: tuple[str, ...] = ()) -> Path:
        """Run the job, with overrides beside the scheme's; its run folder."""
        text = self.folder / "text.txt"
        if not text.exists():
            write_text(text)
        run_job(scheme.name, self.folder / "model", text, self.folder / scheme.name, more)
        return self.folder / scheme.name


def unjudged(case: Case, scheme: Scheme, why: str) -> Row:
    """The row of a case whose original does not run in this release of transformers."""
    return {
        "case": case.name,
        "architecture": class_of(case).__name__,
        "scheme": scheme.name,
        "verdict": "unjudged",
        "reason": why.split("\n")[0],
    }


def judge(subject: Subject, scheme: Scheme) -> Row:
    """The row of the results for one case and scheme."""
    row: Row = {
        "case": subject.case.name,
        "architecture": subject.architecture,
        "scheme": scheme.name,
    }
    run = subject.folder / scheme.name
    try:
        with _limited(SECONDS), _silent():
            row |= _compressed(subject, scheme)
    except UserError as told:
        late = [kind for kind in _kinds_built(run) if kind not in BEFORE]
        return row | {"verdict": "late" if late else "refused", "reason": str(told)}
    except Exception as raised:  # the verdict is about whatever comes
        last = traceback.extract_tb(raised.__traceback__)[-1]
        place = f"{Path(last.filename).name}:{last.lineno}"
        told = str(raised).strip().split("\n")[0][:300]
        return row | {"verdict": "crash", "reason": f"{type(raised).__name__}: {told} ({place})"}
    try:
        with _limited(SECONDS), _silent():
            return row | measured(subject, scheme, run / "checkpoint", _told(run))
    except Exception as raised:
        told = str(raised).strip().split("\n")[0][:300]
        return row | {"verdict": "wrong", "reason": f"{type(raised).__name__}: {told}"}


def _compressed(subject: Subject, scheme: Scheme) -> Row:
    """Run the job; where it is refused and told another override, run it so, as the row says."""
    try:
        subject.compress(scheme)
    except UserError as told:
        advice = re.search(ADVICE, told.remedy or "")
        if advice is None:
            raise
        subject.compress(scheme, (advice[0],))
        return {"advice": advice[0]}
    return {}


def measured(
    subject: Subject, scheme: Scheme, checkpoint: Path, told: Mapping[str, Any] | None = None
) -> Row:
    """The row of a checkpoint; `told`: what result.json says of transformers, if a job wrote it."""
    unpacked = unpack(checkpoint, subject.turned)
    named = original_names(unpacked.tensors, subject.tensors)
    quantized = {name.removesuffix(".weight") for name in named.compressed(unpacked.modules)}
    noise = error(
        subject.dense(with_noise(subject.tensors, quantized, scheme.noise), "noisy"), subject.logits
    )
    found = error(subject.dense(named.tensors, "dense"), subject.logits)
    bound = min(2 * noise + 0.01, ZEROS)
    done = sum(1 for module in unpacked.modules if is_expert(module))
    total = expert_matrices(subject.tensors)
    left = sorted({pattern(n) for n in _left_dense(unpacked.tensors, unpacked.modules)})
    faults: list[str] = []
    if not unpacked.modules:
        faults.append("nothing was compressed")
    if not found <= bound:
        faults.append(f"logits error {found:.3f} above {bound:.3f}")
    if done < total:
        faults.append(f"{done} of {total} expert matrices compressed")
    moved = _moved(subject.tensors, named.tensors, quantized)
    if scheme.moves and not moved:
        faults.append("the transform changed nothing")
    loaded = _in_transformers(subject, checkpoint, min(3 * noise + 0.03, ZEROS))
    if "cannot" in loaded and loaded["cannot"] == _original_there(subject):
        told = None  # what the original cannot do either is no matter of the checkpoint
    if told is not None and told["loads"] is False and "error" not in loaded:
        loaded = {"cannot": "; ".join(told["why"])[:300]}
    misread = _misread(loaded, told)
    verdict = "wrong" if faults else "misread" if misread else "ok"
    return {
        "verdict": verdict,
        "reason": "; ".join(faults + misread),
        "modules": len(unpacked.modules),
        "experts": [done, total],
        "dense": left,
        "moved": moved,
        "error": round(found, 4),
        "noise": round(noise, 4),
        "transformers": loaded,
    }


def _misread(loaded: Row, told: Mapping[str, Any] | None) -> list[str]:
    """What a user of transformers is not told, or told wrongly."""
    if "wrong" in loaded:
        return [f"transformers loads it wrongly: {loaded['wrong']}"]
    if told is None or told["loads"] is None:
        return []
    if told["loads"] is False and "error" in loaded:
        return ["result.json says that transformers does not load it, but it does"]
    if told["loads"] and "cannot" in loaded:
        return [f"result.json says that transformers loads it: {loaded['cannot']}"]
    return []


def _told(run: Path) -> Mapping[str, Any] | None:
    """What result.json says of loading in transformers: {loads, why}; None if nothing."""
    result = json.loads((run / "result.json").read_text(encoding="utf-8"))
    told: Mapping[str, Any] | None = result.get("engines", {}).get("transformers")
    return told


def _original_there(subject: Subject) -> str:
    """The exception of a forward of the original in its own dtype; empty if it runs."""
    try:
        logits(load(subject.case, subject.folder / "model", dtype="auto"))
    except RuntimeError as raised:
        return _in_words(raised)
    return ""


def _in_words(raised: Exception) -> str:
    return f"{type(raised).__name__}: {str(raised).strip().splitlines()[0][:200]}"


def _in_transformers(subject: Subject, checkpoint: Path, bound: float) -> Row:
    """Its logits error there; or the exception (`cannot`), or what is silently `wrong`."""
    try:
        found = error(_run_there(subject.case, checkpoint), subject.logits)
    except ValueError as told:
        return {"wrong": str(told).split("\n")[0][:200]}
    except Exception as raised:
        return {"cannot": _in_words(raised)}
    if not found <= bound:
        return {"wrong": f"logits error {found:.3f} above {bound:.3f}"}
    return {"error": round(found, 4)}


def _run_there(case: Case, checkpoint: Path) -> Tensor:
    """Logits in the dtype of the checkpoint, or in float32 where the class cannot do that.

    DeepSeek-V4 multiplies float32 streams by bfloat16 weights, in the original as well.
    """
    model = load(case, checkpoint, dtype="auto")
    try:
        return logits(model)
    except RuntimeError as first:
        try:
            return logits(load(case, checkpoint))
        except RuntimeError:
            raise first from None


def _left_dense(tensors: Mapping[str, Tensor], modules: frozenset[str]) -> Iterator[str]:
    for name, tensor in tensors.items():
        if tensor.dim() >= 2 and name.removesuffix(".weight") not in modules:
            yield name


def _moved(before: Mapping[str, Tensor], after: Mapping[str, Tensor], quantized: set[str]) -> int:
    """How many tensors have other values than rounding gives them."""
    count = 0
    for name, tensor in before.items():
        if name in after and tensor.is_floating_point():
            change = (after[name].float() - tensor.float()).norm() / tensor.float().norm()
            count += bool(change > (ROUNDING if name.removesuffix(".weight") in quantized else 0))
    return count


def pattern(name: str) -> str:
    """The name with a star for each number."""
    return re.sub(r"\.\d+(?=\.|$)", ".*", name)


def _kinds_built(run: Path) -> list[str]:
    result = run / "result.json"
    if not result.exists():
        return []
    nodes = json.loads(result.read_text(encoding="utf-8"))["nodes"]
    return [node["kind"] for node in nodes if node["status"] == "built"]


class TooLong(Exception):
    """A job that takes longer than any of its kind should."""


@contextlib.contextmanager
def _limited(seconds: int) -> Iterator[None]:
    """Context that ends after so many seconds of processor time, or twenty times as long a wait."""

    def stop(*_: object) -> None:
        raise TooLong(f"more than {seconds} s")

    clocks = {
        signal.SIGPROF: (signal.ITIMER_PROF, seconds),
        signal.SIGALRM: (signal.ITIMER_REAL, 20 * seconds),
    }
    before = {sign: signal.signal(sign, stop) for sign in clocks}
    for timer, limit in clocks.values():
        signal.setitimer(timer, limit)
    try:
        yield
    finally:
        for sign, (timer, _) in clocks.items():
            signal.setitimer(timer, 0)
            signal.signal(sign, before[sign])


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield
