"""The compressed layer: tensors for the shard, what was done to each module, distributions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from pipeline.stage import Draft
from stages.compress.layer.state import LayerState
from stages.formats.layer_artifact import CHECKSUM, LAYER, NEGATIVE, SHARD, to_groups
from stages.model.blueprint import LinearSpec
from stages.schemes.layouts import layout_of
from stages.schemes.scheme import SchemeGroup
from stages.schemes.sizes import label
from stages.weights.positional_writer import PlacedFile
from stages.weights.tensor_content import ShardContent

BINS = 41
ROWS = 64
"""Rows that are counted, evenly spaced: enough for a picture, next to nothing in time."""
KEPT = 2
"""Modules of a layer whose distributions are kept: those with the largest relative error."""


def distributions(weight: Tensor, quantized: Tensor) -> dict[str, Any]:
    """Counts of the entries of `weight` and of `weight - quantized`, both [out, in]."""
    rows = torch.linspace(0, len(weight) - 1, min(ROWS, len(weight)), dtype=torch.float64).long()
    w = weight[rows.to(weight.device)].float().cpu()
    return {
        "weight": counted(w),
        "error": counted(w - quantized[rows.to(quantized.device)].float().cpu()),
    }


def counted(values: Tensor) -> dict[str, Any]:
    """`counts` of values in `BINS` equal bins from -`edge` to `edge`, the largest magnitude."""
    edge = float(values.abs().max()) if values.numel() else 0.0
    if edge == 0:
        return {"edge": edge, "counts": []}
    counts = torch.histc(values, bins=BINS, min=-edge, max=edge)
    return {"edge": edge, "counts": list(map(int, counts.tolist()))}


def worst(rows: list[dict[str, Any]], found: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """The distributions of the modules of a layer with the largest errors, the worst first."""
    known = [r for r in rows if r["name"] in found and r["relative_error"] is not None]
    known.sort(key=lambda row: (-row["relative_error"], row["name"]))
    return [
        {"name": r["name"], "relative_error": r["relative_error"], **found[r["name"]]}
        for r in known[:KEPT]
    ]


@dataclass(kw_only=True, slots=True)
class Compressed:
    """A compressed layer as it will be written: tensors by checkpoint name, and what was done.

    `modules` and `rows` are by module in the order of the layer; `schemes` is by name in the
    checkpoint; `fallbacks` says which modules did not become what was asked for, and why;
    `learning` is what a solver that learns tells of the layer, `aimed` what one that is aimed does;
    `batches` is by module what :class:`stages.compress.solve.Solved` calls its batch.
    Tensors go to `file` as they come,
    where there is one; else they are in memory until :meth:`write`.
    """

    tensors: dict[str, Tensor] = field(default_factory=dict)
    file: PlacedFile | None = None
    checksums: dict[str, Tensor] = field(default_factory=dict)
    modules: dict[str, dict[str, Any]] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    fallbacks: list[dict[str, str]] = field(default_factory=list)
    schemes: dict[str, SchemeGroup] = field(default_factory=dict)
    changed: list[str] = field(default_factory=list)
    distributions: dict[str, dict[str, Any]] = field(default_factory=dict)
    searched: list[dict[str, Any]] = field(default_factory=list)
    learning: list[dict[str, Any]] = field(default_factory=list)
    aimed: list[dict[str, Any]] = field(default_factory=list)
    batches: dict[str, str] = field(default_factory=dict)

    def take(self, other: Compressed) -> None:
        """Add what was made of other modules."""
        self.tensors.update(other.tensors)
        self.checksums |= other.checksums
        self.modules |= other.modules
        self.schemes |= other.schemes
        self.rows += other.rows
        self.fallbacks += other.fallbacks
        self.changed += other.changed
        self.distributions |= other.distributions
        self.searched += other.searched
        self.batches |= other.batches

    def record(
        self,
        linear: LinearSpec,
        scheme: SchemeGroup,
        packed: Mapping[str, Tensor],
        sums: Mapping[str, Tensor],
        *,
        solver: str,
        relative_error: float | None,
        fallback: str | None = None,
        zeros: float | None = None,
        negative_scales: bool = False,
    ) -> None:
        """Take the stored tensors and the checksums of one module, both by local name."""
        for part, tensor in packed.items():
            self._put(f"{linear.prefix}.{part}", tensor)
        for side, values in sums.items():
            self.checksums[f"{linear.prefix}.{side}"] = values
        elements = linear.out_features * linear.in_features
        self.modules[linear.name] = {
            "prefix": linear.prefix,
            "format": layout_of(scheme),
            "scheme": label(scheme),
            "solver": solver,
            "relative_error": relative_error,
            "bits": 8 * sum(tensor.nbytes for tensor in packed.values()) / elements,
            "fallback": fallback,
            **({} if zeros is None else {"zeros": zeros}),
            **({NEGATIVE: True} if negative_scales else {}),
        }

    def _put(self, name: str, tensor: Tensor) -> None:
        if self.file is None:
            self.tensors[name] = tensor
        else:
            self.file.put(name, tensor)

    def take_back(self, name: str) -> None:
        """Forget what was recorded of a module, unless it is in the file already."""
        prefix = self.modules.pop(name)["prefix"]
        for tensors in (self.tensors, self.checksums):
            for key in [key for key in tensors if key.rpartition(".")[0] == prefix]:
                del tensors[key]

    def finish(self, layer: LayerState, skipped: Mapping[str, str]) -> None:
        """Take all dense tensors of `layer`, which is emptied, under their checkpoint names.

        `skipped` are modules that were to be quantized and stay as they are, and why.
        """
        stored = layer.subgraph.tensors
        self.searched = layer.searched
        for name in list(layer.tensors):
            module, _, part = name.rpartition(".")
            if name in layer.subgraph.shared or (part == "weight" and module in self.modules):
                del layer.tensors[name]
                continue
            tensor = layer.tensors.pop(name)
            dense = tensor.to(layer.dtype) if module in skipped else tensor
            self._put(stored[name], dense.contiguous())
            if name in layer.changed:
                self.changed.append(stored[name])
        for name, module_info in self.modules.items():
            self.schemes[module_info["prefix"]] = layer.resolved[name].scheme
        for linear in layer.subgraph.linears:
            if linear.name in self.modules:
                self.rows.append(_row(linear.name, self.modules[linear.name]))
            elif linear.name in skipped:
                self.rows.append(_skipped_row(linear.name, layer.dtype))

    def write(self, draft: Draft, dtype: torch.dtype) -> None:
        """Write it as `stages.formats.compressed_layer` reads it; `dtype` is the model's."""
        if self.file is None:
            draft.put(SHARD, ShardContent.of(self.tensors))
        save_file(dict(sorted(self.checksums.items())), draft.path / CHECKSUM)
        told = {
            "dtype": str(dtype).removeprefix("torch."),
            "modules": self.modules,
            "changed": sorted(self.changed),
            "groups": to_groups(self.schemes),
        }
        draft.write_json(LAYER, told)
        draft.meta["result"] = {
            "layers": self.rows,
            "fallbacks": self.fallbacks,
            "distributions": worst(self.rows, self.distributions),
            **({"searched": self.searched} if self.searched else {}),
            **({"learning": self.learning} if self.learning else {}),
            **({"aimed": self.aimed} if self.aimed else {}),
        }


def _row(name: str, info: Mapping[str, Any]) -> dict[str, Any]:
    shown = ("scheme", "solver", "relative_error", "bits", "fallback")
    zeros = {"zeros": info["zeros"]} if "zeros" in info else {}
    return {"name": name, **{key: info[key] for key in shown}, **zeros}


def _skipped_row(name: str, dtype: torch.dtype) -> dict[str, Any]:
    bits = 8.0 * torch.empty(0, dtype=dtype).element_size()
    return {
        "name": name,
        "scheme": "dense",
        "solver": None,
        "relative_error": 0.0,
        "bits": bits,
        "fallback": "skipped",
    }
