"""A table of methods: KL to the original, perplexity, time and memory of each, scheme by scheme.

    python -m tests.benchmarks.methods --model DIR --text wiki.valid.raw --work DIR \\
        --schemes w4a16_g64 'w3a16 scheme.weights.group_size=64' nvfp4

The first half of the text calibrates (16 sequences of 512 tokens), the second evaluates, all judged
by transformers alone in float32. A scheme is its name and overrides, a method likewise: `--methods
gptq 'awq,gptq modifier.awq.duo_scaling=both'`. KL is also compared with the first method's window
by window, which is much finer than the two standard errors. Each run has a fresh store. Rows are
kept in WORK/methods.json as they come: the same command again goes on with what is missing.
With `--peer` and `--autoround` llm-compressor and auto-round take the same tokens for schemes of
integers without quantized inputs.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from tests.benchmarks.divergence import standard_error
from tests.benchmarks.launch import diverged, on_text
from tests.benchmarks.learned import processor_seconds
from tests.benchmarks.tokens import halves

METHODS = (
    "gptq",
    "rtn",
    "rtn modifier.rtn.observer=gram",
    "awq,rtn",
    "awq,gptq",
    "smoothquant,gptq",
    "spinquant,gptq",
    "autoround",
)
"""Modifiers and their overrides; the others are compared with the first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """What all are given; `peers` are interpreters by the name of what they run."""

    model: Path
    text: Path
    work: Path
    samples: int
    length: int
    windows: int
    peers: Mapping[str, str]
    more: tuple[str, ...] = ()

    @property
    def half(self) -> Path:
        return self.work / "calibration.txt"


def presswork(setting: Setting, scheme: str, method: str) -> tuple[dict[str, Any], Path]:
    """One run with a fresh store: what it took, and its checkpoint."""
    (modifiers, *own), (name, *changes) = method.split(), scheme.split()
    folder = setting.work / "run"
    shutil.rmtree(folder, ignore_errors=True)
    command = on_text(
        setting.model,
        setting.half,
        folder,
        f"modifier=[{modifiers}]",
        *own,
        *changes,
        f"dataset.num_samples={setting.samples}",
        f"dataset.sequence_length={setting.length}",
        "eval=none",
        *setting.more,
    )
    words = [f"scheme={name}" if word == "scheme=w4a16_g64" else word for word in command]
    took = processor_seconds(words)
    for tokens in (folder / "store").rglob("tokens.safetensors"):
        shutil.copy(tokens, setting.work / "tokens.safetensors")
    return took, folder / "run" / "checkpoint"


def peer(setting: Setting, scheme: str, name: str) -> tuple[dict[str, Any], Path]:
    """One run of a peer on the tokens of presswork: `llm-compressor` (GPTQ) or `auto-round`."""
    bits, group = integers(scheme)
    folder, tokens = setting.work / "peer", setting.work / "tokens.safetensors"
    shutil.rmtree(folder, ignore_errors=True)
    script = "learned_peer.py" if name == "auto-round" else "peer_run.py"
    command = [setting.peers[name], str(Path(__file__).with_name(script)), str(setting.model)]
    command += [str(tokens), str(folder), "--bits", str(bits), "--group-size", str(group)]
    took = processor_seconds(command)
    return took, folder / "model" if name == "auto-round" else folder


def integers(scheme: str) -> tuple[int, int]:
    """Bits and group size of a scheme such as `w3a16 scheme.weights.group_size=64`."""
    bits = re.match(r"w(\d)a16", scheme)
    group = re.search(r"_g(\d+)|group_size=(\d+)", scheme)
    if bits is None:
        raise ValueError(f"the peers get schemes w<bits>a16 only, not {scheme}")
    return int(bits[1]), int(group[1] or group[2]) if group else 128


def judged(setting: Setting, folder: Path) -> dict[str, Any]:
    """KL and perplexity by transformers alone, with the KL of every window."""
    asked = {"windows": setting.windows, "length": setting.length}
    return diverged(setting.model, folder, setting.text, **asked)


def compared(row: Mapping[str, Any], first: Mapping[str, Any]) -> tuple[float, float]:
    """KL above the first method's, window by window, and its standard error."""
    differences = [a - b for a, b in zip(row["each"], first["each"], strict=True)]
    return fmean(differences), standard_error(differences)


def measure(setting: Setting, schemes: Sequence[str], methods: Sequence[str]) -> dict[str, Any]:
    """Rows by scheme and method; those that WORK/methods.json has are taken from there."""
    setting.work.mkdir(parents=True, exist_ok=True)
    setting.half.write_text(halves(setting.text)[0], encoding="utf-8")
    kept = setting.work / "methods.json"
    rows: dict[str, dict[str, Any]] = json.loads(kept.read_text()) if kept.is_file() else {}
    for scheme in schemes:
        table = rows.setdefault(scheme, {})
        for method in [*methods, *(setting.peers if re.match(r"w\da16", scheme) else ())]:
            if method not in table:
                run = peer if method in setting.peers else presswork
                took, checkpoint = run(setting, scheme, method)
                table[method] = took | judged(setting, checkpoint)
                kept.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
            _show(scheme, method, table[method], table[methods[0]])
    return rows


def _show(scheme: str, method: str, row: Mapping[str, Any], first: Mapping[str, Any]) -> None:
    above, error = compared(row, first)
    sys.stdout.write(
        f"{scheme} | {method} | KL {row['kl']:.4f} +- {row['kl_error']:.4f}"
        f" | {above:+.4f} +- {error:.4f}"
        f" | perplexity {row['perplexity']:.2f} +- {row['perplexity_error']:.2f}"
        f" | {row['processor_seconds']:.0f} s | {row['peak_rss_bytes'] / 1e9:.2f} GB\n"
    )
    sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="a transformers folder")
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--schemes", nargs="+", default=["w4a16_g64"])
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--windows", type=int, default=16)
    parser.add_argument("--peer", help="the interpreter that has llm-compressor")
    parser.add_argument("--autoround", help="the interpreter that has auto-round")
    parser.add_argument("--more", nargs="*", default=[], help="overrides of presswork for all")
    args = parser.parse_args()
    peers = {"llm-compressor": args.peer, "auto-round": args.autoround}
    setting = Setting(
        model=args.model.resolve(),
        text=args.text.resolve(),
        work=args.work.resolve(),
        samples=args.samples,
        length=args.length,
        windows=args.windows,
        peers={name: python for name, python in peers.items() if python},
        more=tuple(args.more),
    )
    measure(setting, args.schemes, args.methods)
    return 0


if __name__ == "__main__":
    sys.exit(main())
