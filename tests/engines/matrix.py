"""Every scheme in every loader that runs on a CPU; makes the table of stages/docs/loaders.md.

    tests/engines/setup_vllm.sh FOLDER && export PRESSWORK_VLLM_PYTHON=FOLDER/bin/python
    python -m tests.engines.matrix --work DIR [--only nvfp4 ...]

A random llama of width 256 is compressed by rounding to each scheme. compressed-tensors unpacks
every module (`mode=verify checkpoint=DIR`), transformers and vLLM give the perplexity of the same
tokens, or the last line of what they say instead.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.config.searchpath import own_configs
from tests.benchmarks.launch import REPOSITORY, launch, presswork
from tests.benchmarks.memory import text_of_bytes
from tests.benchmarks.random_llama import Shape, write_model
from tests.loading import SINCE, unread

HERE = Path(__file__).parent
SHAPE = Shape(layers=2, hidden=256, intermediate=512, heads=4, kv_heads=2, vocab=512)
SKIPPED = {"none", "unquantized", "auto"}
SECONDS = 300
NUMBER = re.compile(r"\d+\.\d\d")
PREFIX = re.compile(r"^(\(EngineCore.*?\)\s*|\[rank\d+\]:\s*)+")
NOISE = re.compile(r"^\s*$|^\[|^sys:|Warning|warn\(|^\s+at |^frame #")


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One scheme: what each loader answered, a perplexity or its last words."""

    scheme: str
    unpacked: str
    transformers: str
    vllm: str


def schemes() -> list[str]:
    """All shipped schemes that quantize something."""
    names = {path.stem for path in (own_configs() / "scheme").glob("*.yaml")}
    return sorted(names - SKIPPED)


def answer(command: Sequence[str]) -> str:
    """The perplexity that a loader prints, or the last line that says what went wrong."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    try:
        done = subprocess.run(
            command,
            cwd=REPOSITORY,
            env=environment,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"no answer in {SECONDS} s"
    for line in reversed(done.stdout.splitlines()):
        if line.startswith('{"perplexity"'):
            return f"{json.loads(line)['perplexity']:.2f}"
    return _last_words(done.stdout + "\n" + done.stderr)


def in_transformers(scheme: str, checkpoint: Path, tokens: Path) -> str:
    """The answer of the installed transformers, and whether it is the one expected by version."""
    command = [sys.executable, str(HERE / "transformers_run.py"), str(checkpoint), str(tokens)]
    found = answer(command)
    if not unread(scheme):
        return found
    if NUMBER.fullmatch(found):
        return f"{found}, though it should not load from {SINCE} on"
    dense = answer([*command, "dequantize"])
    return f"not as it is from {SINCE} on, as expected; {dense} with dequantize=True"


def _last_words(output: str) -> str:
    spoken = [PREFIX.sub("", line).strip() for line in output.splitlines()]
    errors = [i for i, line in enumerate(spoken) if re.match(r"\w*(Error|Exception)\b", line)]
    if not errors:
        rest = [line for line in spoken if not NOISE.search(line)]
        return (rest[-1] if rest else "nothing was said")[:160].replace("|", "/")
    said, after = spoken[errors[-1]], spoken[errors[-1] + 1 :]
    if said.endswith("Reasons:"):  # one line for each kernel that was tried
        said = " ".join([said, *(line for line in after if line)])
    return said[:300].replace("|", "/")


def run(scheme: str, work: Path, model: Path, text: Path, tokens: Path, vllm: str) -> Row:
    """Compress to one scheme and ask every loader."""
    out = work / "runs" / scheme
    where = [f"store.dir={work / 'store'}", f"hydra.run.dir={out}", "eval=none", "modifier=rtn"]
    data = ["dataset=text", f"dataset.path={text}", "dataset.num_samples=4"]
    source = ["model=local", f"model.path={model}", "dataset.sequence_length=64"]
    launch(presswork(f"scheme={scheme}", *source, *data, *where))
    checkpoint = out / "checkpoint"
    sound = launch(presswork("mode=verify", f"checkpoint={checkpoint}", *where[:1])).output
    return Row(
        scheme=scheme,
        unpacked="ok" if "nothing wrong was found" in sound else sound.splitlines()[-1],
        transformers=in_transformers(scheme, checkpoint, tokens),
        vllm=answer([vllm, str(HERE / "vllm_run.py"), str(checkpoint), str(tokens), "Hello"]),
    )


def table(rows: Sequence[Row]) -> str:
    """The rows as Markdown."""
    head = ["scheme", "compressed-tensors unpacks", "transformers", "vLLM on a CPU"]
    lines = [head, ["---"] * 4]
    lines += [[row.scheme, row.unpacked, row.transformers, row.vllm] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--only", nargs="+", choices=schemes(), default=schemes())
    parser.add_argument("--vllm", default=os.environ.get("PRESSWORK_VLLM_PYTHON", ""))
    args = parser.parse_args()
    if not args.vllm:
        parser.error("where is vLLM? --vllm PYTHON or PRESSWORK_VLLM_PYTHON; see setup_vllm.sh")
    work = args.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    model = write_model(work / "model", SHAPE)
    text = text_of_bytes(work / "text.txt", 20_000)
    draw = random.Random(0)
    tokens = work / "tokens.json"
    rows_of_ids = [[draw.randrange(256) for _ in range(64)] for _ in range(4)]
    tokens.write_text(json.dumps(rows_of_ids), encoding="utf-8")
    dense = answer([sys.executable, str(HERE / "transformers_run.py"), str(model), str(tokens)])
    rows = [Row(scheme="(dense)", unpacked="", transformers=dense, vllm="")]
    for scheme in args.only:
        rows.append(run(scheme, work, model, text, tokens, args.vllm))
        sys.stderr.write(f"{rows[-1]}\n")
        (work / "matrix.md").write_text(table(rows), encoding="utf-8")
    sys.stdout.write(table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
