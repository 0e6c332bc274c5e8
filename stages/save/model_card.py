"""Model card (README.md) of a compressed checkpoint."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

CARD = "README.md"
WORST = 5
LOADING = "## How to load it"
"""The heading before which an evaluation is told."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Card:
    """Content of a model card; `rows` and `fallbacks` are those of result.json.

    `source_format` is the quantization method of the original, None if it was dense; `dense` is the
    dtype of weights that are saved dense, None if they are compressed. `data` describes the
    calibration data, None where nothing was calibrated. `modifiers` are their kinds in order.
    """

    name: str | None
    architecture: str
    identity: str
    license: str | None
    size: Mapping[str, Any]
    rows: Sequence[Mapping[str, Any]]
    fallbacks: Sequence[Mapping[str, Any]]
    recipe: str
    source_format: str | None = None
    dense: str | None = None
    data: str | None = None
    modifiers: Sequence[str] = ()


def model_card(card: Card) -> str:
    """The text of README.md: front matter for hubs, what was made of what, loading, recipe."""
    formats = Counter(str(row["scheme"]) for row in card.rows)
    main = formats.most_common(1)[0][0] if formats else "dense"
    base = base_model(card.identity)
    front = {
        **({"license": card.license} if card.license else {}),
        **({"base_model": base, "base_model_relation": "quantized"} if base else {}),
        "library_name": "transformers",
        "tags": ["presswork"] if card.dense else ["compressed-tensors", "presswork"],
    }
    lines = [
        f"---\n{yaml.safe_dump(front, sort_keys=False)}---",
        f"# {card.name or f'{card.architecture}, {main}'}",
        _description(card),
        _made_of(card, formats),
        _sizes(card),
        _loading(card),
        _table(["format", "modules"], [[name, str(count)] for name, count in formats.items()]),
        *_worst(card.rows),
        *_fallbacks(card.fallbacks),
        f"## Recipe\n\n```yaml\n{card.recipe}```",
        f"## Source\n\n`{card.identity}`; the keys of every step are in `provenance.json`.",
    ]
    return "\n\n".join(lines) + "\n"


def base_model(identity: str) -> str | None:
    """The repository `org/name` of a model of the hub; None for a model from elsewhere."""
    kind, _, rest = identity.partition(":")
    return rest.rpartition("@")[0] if kind == "hub" else None


def with_quality(
    text: str, eval: Mapping[str, Any] | None = None, tasks: Mapping[str, Any] | None = None
) -> str:
    """A model card with a section on what was measured before its loading.

    `eval` and `tasks` are the contents of eval.json and tasks.json; None where there is none.
    """
    parts = [*([_distance(eval)] if eval else []), *(_task_scores(tasks) if tasks else [])]
    if not parts:
        return text
    before, heading, after = text.partition(LOADING)
    return "\n\n".join([f"{before}## Quality", *parts, f"{heading}{after}"])


def _task_scores(tasks: Mapping[str, Any]) -> list[str]:
    """A table of each task's main metric, original and compressed, and what its numbers are."""
    scores = tasks["scores"]
    rows = [[f"{name} ({s['main']})", *_score(s[s["main"]])] for name, s in scores.items()]
    if tasks["mean"].get("tasks", 0) > 1:
        rows.append(["mean", *_score(tasks["mean"])])
    if not rows:
        return []
    asked = ", ".join(
        f"{name} {s['samples']} documents" + (f" with {s['shots']} examples" if s["shots"] else "")
        for name, s in scores.items()
    )
    return [
        _table(["task, by lm-evaluation-harness", "original", "compressed", "difference"], rows),
        f"Asked: {asked}; ± is one standard error of the difference, as both models answer the "
        "same documents.",
    ]


def _score(score: Mapping[str, Any]) -> list[str]:
    """Original, compressed and difference; shares in percent, their difference in points."""
    share = score.get("higher_is_better", True) and 0 <= score["original"] <= 1
    factor, unit, off = (100, " %", " points") if share else (1, "", "")
    pair = [f"{factor * score[name]:.4g}{unit}" for name in ("original", "compressed")]
    error = _times(factor, score["error"])
    return [*pair, _off(factor * score["difference"], error, "+.3g") + off]


def _distance(measured: Mapping[str, Any]) -> str:
    perplexity = measured["perplexity"]
    change = _off(100 * perplexity["change"], _times(100, perplexity["change_stderr"]), "+.1f")
    same = 100 * measured["top1_agreement"], _times(100, measured["top1_agreement_stderr"])
    rows = [
        [
            "perplexity",
            _off(perplexity["original"], perplexity["original_stderr"]),
            _off(perplexity["compressed"], perplexity["compressed_stderr"]),
            f"{change} %",
        ],
        [
            "KL divergence to the original, nats a token",
            "",
            _off(measured["kl"], measured["kl_stderr"]),
            "",
        ],
        ["same most likely token", "", f"{_off(*same, '.1f')} %", ""],
    ]
    return (
        f"{_table(['', 'original', 'compressed', 'change'], rows)}\n\n"
        f"On {perplexity['tokens']} tokens, {perplexity['samples']} samples, of "
        f"{_plain(perplexity['dataset'])}; ± is one standard error over samples."
    )


def _off(value: float, stderr: float | None, form: str = ".4g") -> str:
    return f"{value:{form}}" + ("" if stderr is None else f" ± {stderr:.2g}")


def _times(factor: float, value: float | None) -> float | None:
    return None if value is None else factor * value


def _description(card: Card) -> str:
    if card.dense is None:
        return "A compressed-tensors checkpoint made by presswork."
    return (
        f"Plain {card.dense} weights, each rounded to a value of the format below "
        "(save.compressed=false): as large as a dense model, for any tool that knows nothing of "
        "quantization. Inputs of modules are not quantized when this folder is run."
    )


def _made_of(card: Card, formats: Mapping[str, int]) -> str:
    base = base_model(card.identity)
    named = f"[{base}](https://huggingface.co/{base})" if base else _elsewhere(card)
    rows = [
        ["base model", named],
        ["scheme", ", ".join(formats) or "dense"],
        *([["modifiers", ", ".join(card.modifiers)]] if card.modifiers else []),
        ["calibration data", _plain(card.data) if card.data else "none"],
        ["licence of the base model", card.license or "see the base model"],
    ]
    return _table(["", "what"], rows)


def _elsewhere(card: Card) -> str:
    """A model that is not of the hub: its architecture, and its file where it was one by name."""
    kind, _, rest = card.identity.partition(":")
    file = rest.rpartition("/")[2] if kind == "wheel" else ""
    return f"{card.architecture}, {_plain(file)}" if file else card.architecture


def _loading(card: Card) -> str:
    packages = "" if card.dense else "; transformers needs the package compressed-tensors"
    return (
        f"{LOADING}\n\n`CHECKPOINT` is this folder, or its repository{packages}.\n\n"
        "```sh\nvllm serve CHECKPOINT\npython -m sglang.launch_server --model-path CHECKPOINT\n"
        "```\n\n```python\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        'model = AutoModelForCausalLM.from_pretrained("CHECKPOINT", dtype="auto")\n'
        'tokenizer = AutoTokenizer.from_pretrained("CHECKPOINT")\n```'
    )


def _plain(text: str) -> str:
    """A description within one line of a table."""
    return " ".join(text.replace("|", "/").split())


def _sizes(card: Card) -> str:
    size = card.size
    rows = [["original", f"{size['original_bytes'] / 1e6:.1f} MB"]]
    if card.source_format is not None:
        rows = [
            ["original, dense", rows[0][1]],
            [f"original, stored as {card.source_format}", f"{size['source_bytes'] / 1e6:.1f} MB"],
        ]
    rows += [
        ["dense" if card.dense else "compressed", f"{size['compressed_bytes'] / 1e6:.1f} MB"],
        ["bits per weight, whole model", f"{size['whole_bits_per_weight']:.2f}"],
    ]
    if size["bits_per_weight"] is not None:
        bits = f"{size['bits_per_weight']:.2f}"
        rows.insert(-1, ["bits per weight, of the weights that were compressed", bits])
    return _table(["", "size"], rows)


def _worst(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    known = [row for row in rows if row["relative_error"] is not None]
    worst = sorted(known, key=lambda row: (-row["relative_error"], row["name"]))[:WORST]
    if not worst:
        return []
    shown = [[f"`{row['name']}`", f"{row['relative_error']:.2e}"] for row in worst]
    return [f"Largest relative errors:\n\n{_table(['module', 'error'], shown)}"]


def _fallbacks(fallbacks: Sequence[Mapping[str, Any]]) -> list[str]:
    if not fallbacks:
        return []
    lines = "\n".join(f"- `{x['module']}` was {x['action']}: {x['reason']}" for x in fallbacks)
    return [f"## Not as asked for\n\n{lines}"]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
