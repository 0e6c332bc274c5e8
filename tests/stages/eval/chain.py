"""A tiny model, its compressed checkpoint and samples as artifacts, and the stages run on them."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from compressed_tensors.compressors import compress_module
from compressed_tensors.quantization import (
    QuantizationConfig,
    QuantizationStatus,
    apply_quantization_config,
    preset_name_to_scheme,
)
from compressed_tensors.quantization.utils import calculate_qparams
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from pipeline.stage import Stage, Task
from stages.weights.source_manifest import SourceFile, SourceManifest
from tests.stages.model.tiny import Tiny, tiny
from tests.stages.tokens.fakes import FakeArtifact, byte_tokenizer

VOCAB = 272


@dataclass
class Chain:
    """Artifacts by input name; `folder` takes results."""

    folder: Path
    model: Tiny
    inputs: dict[str, FakeArtifact] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def run(self, stage: Stage, name: str, **inputs: FakeArtifact) -> FakeArtifact:
        """Run a stage on `inputs` and on source, model and tokens."""
        draft = FakeArtifact(self.folder / name)
        draft.path.mkdir()
        common = {k: self.inputs[k] for k in ("source", "model", "tokens") if k in self.inputs}
        stage.run(
            Task(
                node_name=name,
                member=None,
                index=None,
                inputs={**common, **inputs},
                outputs={"out": draft},
                scratch=self.folder / f"{name}.scratch",
                progress=lambda fraction, text: None,
                warn=self.warnings.append,
                resource=lambda key, make: make(),
            )
        )
        return draft


def chain(folder: Path, family: str = "llama", **options: Any) -> Chain:
    """A random model of a family with a byte tokenizer, loaded and surveyed."""
    model = tiny(family, folder / "weights", vocab_size=VOCAB, **options)
    made = Chain(folder=folder, model=model)
    source = FakeArtifact(folder / "load")
    byte_tokenizer().save_pretrained(source.path / "model")
    for name in ("config.json", "generation_config.json"):
        shutil.copy(model.path / name, source.path / "model" / name)
    weights = SourceFile.of("model.safetensors", model.path / "model.safetensors", None)
    SourceManifest(kind="safetensors", identity="tiny", files=(weights,)).write(source)
    patch = FakeArtifact(folder / "patch")
    patch.path.mkdir()
    patch.write_json("blueprint.json", model.blueprint().to_json())
    made.inputs.update(source=source, model=patch)
    return made


def add_samples(made: Chain, lengths: list[int]) -> Tensor:
    """Random samples of these lengths as the input `tokens`; returns the ids."""
    ids = torch.randint(3, 259, (len(lengths), max(lengths)), dtype=torch.int32)
    for row, length in zip(ids, lengths, strict=True):
        row[length:] = 0
    tokens = FakeArtifact(made.folder / "tokens", {"dataset": "noise", "samples": len(lengths)})
    tokens.path.mkdir()
    tensors = {"input_ids": ids, "lengths": torch.tensor(lengths, dtype=torch.int32)}
    save_file(tensors, tokens.path / "tokens.safetensors")
    made.inputs["tokens"] = tokens
    return ids.long()


def dense_checkpoint(made: Chain, folder: Path, noise: float) -> FakeArtifact:
    """The model with noise on its weights, as a `save` result without compression."""
    model = made.model.original()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=noise)
    model.save_pretrained(folder / "checkpoint")
    return FakeArtifact(folder)


def compressed_checkpoint(made: Chain, folder: Path, preset: str) -> FakeArtifact:
    """The model rounded to nearest and written by compressed-tensors, as a `save` result."""
    model = made.model.original()
    scheme = preset_name_to_scheme(preset, ["Linear"])
    if scheme.weights.group_size:
        scheme.weights.group_size = 16
    config = QuantizationConfig(config_groups={"group_0": scheme}, ignore=["lm_head"])
    apply_quantization_config(model, config)
    for module in model.modules():
        if getattr(module, "quantization_scheme", None) is not None:
            _round(module)
    formats = {str(module.quantization_scheme.format.value) for module in _quantized(model)}
    (config.format,) = formats
    config.quantization_status = QuantizationStatus.COMPRESSED
    target = folder / "checkpoint"
    target.mkdir(parents=True)
    tensors = {k: v.contiguous().clone() for k, v in model.state_dict().items()}
    if made.model.config.get("tie_word_embeddings"):
        del tensors["lm_head.weight"]
    save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
    written = {**made.model.config, "quantization_config": config.model_dump(mode="json")}
    written["quantization_config"]["quant_method"] = "compressed-tensors"
    (target / "config.json").write_text(json.dumps(written))
    return FakeArtifact(folder)


def _quantized(model: nn.Module) -> list[Any]:
    return [m for m in model.modules() if getattr(m, "quantization_scheme", None) is not None]


def _round(module: Any) -> None:
    args = module.quantization_scheme.weights
    weight = module.weight.data
    size = args.group_size or weight.shape[1]
    groups = weight.reshape(len(weight), -1, size)
    scale, _ = calculate_qparams(groups.amin(-1), groups.amax(-1), args)
    module.weight_scale.data.copy_(scale)
    compress_module(module)


def reference_logits(path: Path, ids: Tensor, lengths: list[int]) -> list[Tensor]:
    """Logits [length, vocab] float64 of each sample, by transformers' own loading of a folder."""
    model = AutoModelForCausalLM.from_pretrained(path, experts_implementation="eager").eval()
    with torch.no_grad():
        return [
            model(row[None, :length], use_cache=False).logits[0].double()
            for row, length in zip(ids, lengths, strict=True)
        ]


def reference_result(
    original: list[Tensor], compressed: list[Tensor], ids: Tensor
) -> Mapping[str, float]:
    """Perplexities, KL and agreement in float64 by their definitions, with standard errors."""
    measured: dict[str, list[Tensor]] = {name: [] for name in ("p", "q", "more", "kl", "same")}
    for row, before, after in zip(ids, original, compressed, strict=True):
        p, q = before[:-1].log_softmax(-1), after[:-1].log_softmax(-1)
        at = torch.arange(len(p)), row[1 : len(before)]
        measured["p"].append(-p[at])
        measured["q"].append(-q[at])
        measured["more"].append(p[at] - q[at])
        measured["kl"].append((p.exp() * (p - q)).sum(-1))
        measured["same"].append((p.argmax(-1) == q.argmax(-1)).double())
    mean = {name: float(torch.cat(rows).mean()) for name, rows in measured.items()}
    off = {name: _stderr(rows) for name, rows in measured.items()}
    before, after, ratio = (math.exp(mean[name]) for name in ("p", "q", "more"))
    return {
        "original": before,
        "original_stderr": before * off["p"],
        "compressed": after,
        "compressed_stderr": after * off["q"],
        "change": after / before - 1,
        "change_stderr": ratio * off["more"],
        "kl": mean["kl"],
        "kl_stderr": off["kl"],
        "top1_agreement": mean["same"],
        "top1_agreement_stderr": off["same"],
        "tokens": sum(map(len, measured["p"])),
        "samples": sum(len(row) > 0 for row in measured["p"]),
    }


def _stderr(rows: list[Tensor]) -> float:
    """Standard error of the mean over all of `rows`, each of which is drawn whole."""
    whole, rows = torch.cat(rows), [row for row in rows if len(row)]
    sums = [float((row - whole.mean()).sum()) for row in rows]
    return math.sqrt(sum(x * x for x in sums) * len(rows) / (len(rows) - 1)) / len(whole)
