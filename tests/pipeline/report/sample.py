"""A made-up run of thirty layers, for looking at its report and for tests of it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from pipeline.report.record import NodeRecord, RunRecord, RunStatus

MODULES = (
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
)


def node(name: str, seconds: float = 1.0, **given: Any) -> NodeRecord:
    facts: dict[str, Any] = {
        "kind": name.partition("[")[0],
        "keys": {"out": f"{abs(hash(name)):064x}"[:64]},
        "status": "built",
        "started": 1000.0,
        "peak_rss_bytes": 900_000_000,
        "bytes": 2_000_000,
    }
    return NodeRecord(name=name, seconds=seconds, **{**facts, **given})


def layer_rows(index: int) -> list[dict[str, Any]]:
    return [
        {
            "name": f"model.layers.{index}.{module}",
            "scheme": "W4A16 g64",
            "solver": "gptq",
            "relative_error": 0.004 * (1 + math.sin(index * 0.7 + place) ** 2 + 0.1 * place),
            "bits": 4.25,
            "fallback": "rtn" if (index, place) == (7, 2) else None,
        }
        for place, module in enumerate(MODULES)
    ]


def spread(index: int) -> dict[str, Any]:
    """Made-up distributions of one module of a layer."""
    bell = [int(1000 * math.exp(-(((place - 20) / 7) ** 2))) for place in range(41)]
    return {
        "name": f"model.layers.{index}.mlp.down_proj",
        "relative_error": 0.004 * (1.6 + math.sin(index * 0.7 + 6) ** 2),
        "weight": {"edge": 0.31, "counts": bell},
        "error": {"edge": 0.012, "counts": [900 + 7 * place % 90 for place in range(41)]},
    }


def graph() -> dict[str, Any]:
    """The part of a resolved config that says how the steps are wired, references and all."""
    layer = {"source": "load", "model": "patch"}
    inputs: dict[str, dict[str, str]] = {
        "load": {},
        "patch": {"source": "load"},
        "tokens": {"source": "load"},
        "calibrate": {**layer, "tokens": "tokens", "activations": "${graph.wiring.next}@previous"},
        "compress": {**layer, "statistics": "calibrate"},
        "propagate": {**layer, "weights": "compress", "activations": "propagate@previous"},
        "save": {**layer, "layers": "compress"},
        "verify": {**layer, "layers": "compress", "checkpoint": "save"},
        "eval": {**layer, "checkpoint": "save"},
        "generate": {**layer, "checkpoint": "save"},
    }
    nodes = {name: {"kind": name, "inputs": each} for name, each in inputs.items()}
    return {"wiring": {"next": "propagate"}, "nodes": nodes}


def sample_run(folder: Path, *, layers: int = 30, status: RunStatus = "ok") -> RunRecord:
    nodes = [
        node("load", 0.4, status="hit", recorded_seconds=3.2),
        node("patch", 0.2, status="hit"),
        node("tokens", 1.5, started=1000.2),
    ]
    clock = 1001.7
    for index in range(layers):
        nodes.append(node(f"calibrate[{index}]", 0.9, started=clock))
        result: dict[str, Any] = {"layers": layer_rows(index), "distributions": [spread(index)]}
        if index == 7:
            result["fallbacks"] = ["model.layers.7.self_attn.v_proj: Gram matrix singular, rtn"]
        nodes.append(
            node(f"compress[{index}]", 0.6, started=clock + 0.9, metas=({"result": result},))
        )
        nodes.append(node(f"propagate[{index}]", 0.5, started=clock + 1.5))
        clock += 2.0
    size = {"original_bytes": 269_060_552, "compressed_bytes": 112_437_760}
    bits = {"bits_per_weight": 4.252, "whole_bits_per_weight": 6.686}
    found = {"size": {**size, **bits, "original_bits_per_weight": 16.0}}
    nodes.append(node("save", 0.7, started=clock, metas=({"result": found},)))
    checks = [
        {"name": "names and shapes", "ok": True, "detail": "513 tensors"},
        {"name": "decompressed weights equal the solver's", "ok": True, "detail": "210 modules"},
        {"name": "loads in vLLM", "ok": None, "detail": "vLLM is not installed here"},
    ]
    verify = {"result": {"verify": {"ok": True, "checks": checks}}}
    nodes.append(node("verify", 1.7, started=clock + 0.7, metas=(verify,)))
    perplexity = {
        "original": 19.82,
        "original_stderr": 1.3,
        "compressed": 21.07,
        "compressed_stderr": 1.4,
        "change": 21.07 / 19.82 - 1,
        "change_stderr": 0.0063,
        "tokens": 4088,
        "samples": 8,
        "dataset": "pydoc",
    }
    evaluated = {
        "perplexity": perplexity,
        "kl": 0.0713,
        "kl_stderr": 0.0042,
        "top1_agreement": 0.8837,
        "top1_agreement_stderr": 0.0051,
    }
    nodes.append(node("eval", 4.1, started=clock + 2.4, metas=({"result": {"eval": evaluated}},)))
    told = [
        {
            "prompt": "The capital of France is",
            "original": " Paris. It is the most visited city in the world, with 18 million",
            "compressed": " Paris. The capital of France is Paris. The capital of Germany is",
        },
        {
            "prompt": "def fibonacci(n):",
            "original": "\n    if n <= 1:\n        return n\n    return fibonacci(n - 1)",
            "compressed": "\n    if n == 0:\n        return 0\n    <script>alert(1)</script>",
        },
    ]
    said = {"result": {"generations": told}, "warnings": ["the prompt has no chat template"]}
    nodes.append(node("generate", 6.3, started=clock + 6.5, metas=(said,)))
    return RunRecord(
        run_dir=folder,
        status=status,
        nodes=tuple(nodes),
        config={
            "mode": "run",
            "graph": graph(),
            "model": {"kind": "hub", "id": "org/model-135m", "revision": "main"},
            "dataset": {"kind": "pydoc", "num_samples": 16, "sequence_length": 512, "seed": 0},
            "modifier": {"gptq": {"kind": "gptq"}},
            "scheme": {"weights": {"num_bits": 4, "group_size": 64}},
        },
        plan=[],
        started=1000.0,
        seconds=clock + 12.8 - 1000.0,
        checkpoint=folder / "checkpoint",
        warnings=("store: 91 % of the disk is used",),
        resume="python -m pipeline",
        command="python -m pipeline model=hub model.id=org/model-135m scheme=w4a16_g64",
    )
