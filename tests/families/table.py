"""The results as lines for a terminal, and as the page stages/docs/models.md."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from tests.families.judge import Row
from tests.families.schemes import SCHEMES

INTRO = """# Models

Written by `python -m tests.families --write`; change nothing here by hand.

{count} architectures of transformers, each as a tiny model with random weights and every feature
of its class switched on (sliding windows, shared keys and values, latent attention, several kinds
of layers, experts), go through the whole pipeline under four schemes: `fp8_dynamic` by rounding,
`w4a16` by GPTQ, `nvfp4` with calibrated input scales, `w8a8` by SmoothQuant and GPTQ. The
checkpoint is then unpacked by {lines} lines of the tests' own, loaded dense into the original
class, and its logits are compared with the original's.

A cell is the relative error of the logits (median over tokens), and after the slash that of the
checkpoint as transformers itself loads and runs it, activations quantized. An error passes below
twice that of Gaussian noise as large as the scheme's rounding, put into the same weights, and
below 1, that of zeros.
`-`: transformers {transformers} does not load such a checkpoint, and presswork says so. (1): norms
feed no Linear (they come after blocks, or have no weights), so that SmoothQuant is refused with the
advice to say `modifier.smoothquant.pairs=[linear]`, and is run so.

Versions: {versions}.

At the newest end, transformers 5.24.0 and compressed-tensors 0.20.0 (28 November 2026), the same
driver finds 540 rows right and the same two models refused. The other four: Llama 4's own class
raises without images, so that there is no original to judge by. Loading differs: where a
checkpoint has packed codes, 5.24 loses dense weights that it merges while loading (convolutions of
Kimi Linear and OLMo hybrid, LongCat's experts that compute nothing); verification tries that and
result.json says so.
"""


def line(row: Row) -> str:
    """One result, for a terminal."""
    head = f"{row['case']:24} {row['scheme']:12} {row['verdict']:8} {row['seconds']:5.1f} s"
    if "error" in row:
        done, total = row["experts"]
        there = ", ".join(f"{name} {value}" for name, value in row["transformers"].items())
        head += f"  error {row['error']:.4f} (noise {row['noise']:.4f}) experts {done}/{total}"
        head += f" moved {row['moved']} transformers: {there}"
    return f"{head}  {row.get('reason', '')}".replace("\n", " ").rstrip()


def summary(rows: Iterable[Row]) -> str:
    """How many rows have each verdict."""
    counts: dict[str, int] = {}
    for row in rows:
        counts[row["verdict"]] = counts.get(row["verdict"], 0) + 1
    return ", ".join(f"{count} {verdict}" for verdict, count in sorted(counts.items()))


def peer_line(row: Row) -> str:
    """One model in both programs, for a terminal."""
    sides = (f"{side}: {row[side]}" for side in ("ours", "peer"))
    return f"{row['case']:20} {row['scheme']:12} " + "\n    ".join(sides)


def page(rows: Sequence[Row], peers: Sequence[Row], *, unpacking: int) -> str:
    """The page; `peers`: rows of both programs; `unpacking`: lines of the code that unpacks."""
    versions = sorted(
        {f"{name} {version}" for row in rows for name, version in row["made"].items()}
    )
    newest = max((row["made"]["transformers"] for row in rows), default="")
    intro = INTRO.format(
        count=len({row["case"] for row in rows}),
        lines=unpacking,
        transformers=newest,
        versions=", ".join(versions),
    )
    return "\n".join(
        [
            intro,
            *_table(rows),
            *_refusals(rows),
            *_unjudged(rows),
            *_faults(rows),
            *_peers(peers),
            "",
        ]
    )


def _table(rows: Sequence[Row]) -> Iterator[str]:
    dense = "stays dense, beside embeddings, heads and towers"
    yield f"| model | experts | {' | '.join(SCHEMES)} | {dense} |"
    yield "| --- | --- | " + " | ".join("---" for _ in SCHEMES) + " | --- |"
    by_case: dict[str, dict[str, Row]] = {}
    for row in rows:
        by_case.setdefault(row["case"], {})[row["scheme"]] = row
    for name, found in by_case.items():
        any_row = next(iter(found.values()))
        cells = [_cell(found[scheme]) if scheme in found else "" for scheme in SCHEMES]
        label = f"{any_row['architecture']} ({name})"
        yield f"| {label} | {_experts(found)} | {' | '.join(cells)} | {_dense(found)} |"


def _cell(row: Row) -> str:
    if "error" not in row:
        return row["verdict"]
    loaded = row["transformers"]
    there = (
        f"{loaded['error']:.3f}" if "error" in loaded else "-" if "cannot" in loaded else "wrong"
    )
    mark = "" if row["verdict"] == "ok" else f" {row['verdict']}"
    mark += " (1)" if "advice" in row else ""
    return f"{row['error']:.3f} / {there}{mark}"


def _experts(found: Mapping[str, Row]) -> str:
    counts = [row["experts"] for row in found.values() if "experts" in row]
    done, total = min(counts, default=(0, 0))
    return f"{done} of {total}" if total else ""


def _dense(found: Mapping[str, Row]) -> str:
    """Names that stay dense, where they are not what stays dense in every model."""
    names = [name for row in found.values() for name in row.get("dense", ())]
    words = ("embed", "lm_head", "vision", "visual", "audio", "wte", "wpe", "projector", "embd")
    shown = {
        name.rpartition(".*.")[2].removesuffix(".weight")
        for name in names
        if not any(word in name for word in words)
    }
    return ", ".join(f"`{name}`" for name in sorted(shown))


def _peers(rows: Sequence[Row]) -> Iterator[str]:
    """Both programs side by side."""
    if not rows:
        return
    yield "\n## Beside llm-compressor 0.14.0.1\n"
    yield (
        "`python -m tests.families --peer PYTHON --write`: the same models, tokens and judge. "
        "Error as above; `experts`: matrices compressed of those there are; names: those of the "
        "compressed modules on disk.\n"
    )
    head = "model | scheme | experts | error | in transformers | its experts | error | there"
    yield f"| {head} | names |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"
    for row in rows:
        cells = [cell for side in ("ours", "peer") for cell in _side(row[side])]
        yield f"| {row['case']} | {row['scheme']} | {' | '.join(cells)} | {_names(row)} |"


def _names(row: Row) -> str:
    """Whether both programs name the same modules, and what is not in both."""
    ours, peer = (set(row[side]["names"]) for side in ("ours", "peer"))
    if not peer:
        return ""
    only = {"here": ours - peer, "there": peer - ours}
    told = [f"only {side}: {_some(names)}" for side, names in only.items() if names]
    return "; ".join(told) or "the same"


def _some(names: Collection[str]) -> str:
    """Up to four names, short, and how many more."""
    short = sorted({name.rpartition(".*.")[2] for name in names})
    more = f" and {len(short) - 4} more" if len(short) > 4 else ""
    return ", ".join(f"`{name}`" for name in short[:4]) + more


def _side(row: Row) -> tuple[str, str, str]:
    if "error" not in row:
        return "", f"{row['verdict']}: {row['reason'].split(chr(10))[0][:80]}", ""
    done, total = row["experts"]
    loaded = row["transformers"]
    there = f"{loaded['error']:.3f}" if "error" in loaded else next(iter(loaded))
    return f"{done} of {total}" if total else "", f"{row['error']:.3f}", there


def _refusals(rows: Sequence[Row]) -> Iterator[str]:
    yield from _list("Refused before anything runs", rows, ("refused",))


def _unjudged(rows: Sequence[Row]) -> Iterator[str]:
    yield from _list("Without an original to compare with", rows, ("unjudged",))


def _faults(rows: Sequence[Row]) -> Iterator[str]:
    yield from _list("Known faults", rows, ("late", "crash", "wrong", "misread"))


def _list(title: str, rows: Sequence[Row], verdicts: Sequence[str]) -> Iterator[str]:
    reasons: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        if row["verdict"] in verdicts:
            key = (row["case"], row["reason"].split("\n")[0])
            reasons.setdefault(key, []).append(row["scheme"])
    if not reasons:
        return
    yield f"\n## {title}\n"
    for (name, reason), schemes in reasons.items():
        where = "" if len(schemes) == len(SCHEMES) else f" ({', '.join(schemes)})"
        yield f"- {name}{where}: {reason}"
