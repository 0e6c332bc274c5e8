"""Number format and layout of a quantized module, by what the checkpoint's config says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.errors import UserError
from stages.inspect.checkpoint import Checkpoint
from stages.quantized.compressed_tensors import CompressedSource, numbers_of
from stages.quantized.source import Module, QuantizedSource
from stages.schemes.quant_args import QArgs
from stages.schemes.scheme import SchemeGroup
from stages.schemes.sizes import label


@dataclass(frozen=True, kw_only=True, slots=True)
class Format:
    """A short name ("W4A16 g64"), the layout on disk, the grid of weights, and that of inputs."""

    label: str
    layout: str
    grid: QArgs
    input_args: QArgs | None = None

    def __hash__(self) -> int:
        return hash((self.label, self.layout, repr(self.grid), repr(self.input_args)))

    @property
    def inputs(self) -> str:
        """How inputs are quantized: "16 bits", "FP8, dynamic"."""
        if self.input_args is None:
            return "not quantized"
        args = self.input_args
        kind = f"{'FP' if args.type == 'float' else 'INT'}{args.num_bits}"
        return f"{kind} {args.strategy}, {'static' if args.dynamic is False else 'dynamic'}"

    @property
    def group(self) -> SchemeGroup | None:
        """The format as a scheme's group; None where presswork's schemes have no such format."""
        try:
            return SchemeGroup(weights=self.grid, input_activations=self.input_args)
        except UserError:
            return None


def format_of(checkpoint: Checkpoint, reader: QuantizedSource, module: Module) -> Format:
    """The format of a module: of its group for compressed-tensors, else of the whole config."""
    layout, inputs = checkpoint.method or "", _inputs(checkpoint, module)
    if isinstance(reader, CompressedSource):
        scheme = reader.schemes[module.prefix]
        layout = str(scheme.format)
        if scheme.input_activations is not None:
            inputs = input_args(scheme.input_activations)
    elif stated := checkpoint.quantization:
        layout = str(stated.get("checkpoint_format") or stated.get("packing_format") or layout)
    found = Format(label="", layout=layout, grid=module.grid, input_args=inputs)
    named = found.group
    return Format(
        label=label(named) if named is not None else f"{module.grid.type}{module.grid.num_bits}",
        layout=layout,
        grid=module.grid,
        input_args=inputs,
    )


def input_args(args: Any) -> QArgs | None:
    """compressed-tensors' args of inputs as ours; None where ours have no such format."""
    plain = numbers_of(args)
    try:
        return QArgs(
            num_bits=plain.num_bits,
            type=plain.type,
            symmetric=plain.symmetric,
            strategy=plain.strategy,
            group_size=plain.group_size,
            scale_dtype=plain.scale_dtype,
            dynamic=getattr(args, "dynamic", False),
        )
    except UserError:
        return None


def _inputs(checkpoint: Checkpoint, module: Module) -> QArgs | None:
    """The inputs of formats that do not state them for each group."""
    stated: Mapping[str, Any] = checkpoint.quantization or {}
    static = any("input_scale" in part or part == "activation_scale" for part in module.parts)
    if checkpoint.method == "fp8":
        dynamic = stated.get("activation_scheme") != "static"
        return QArgs(
            num_bits=8, type="float", strategy="token" if dynamic else "tensor", dynamic=dynamic
        )
    if checkpoint.method == "modelopt" and static:
        if module.grid.strategy == "tensor_group":
            return QArgs(
                num_bits=4, type="float", strategy="tensor_group", group_size=16,
                scale_dtype="float8_e4m3fn", dynamic="local",
            )  # fmt: skip
        return QArgs(num_bits=8, type="float", strategy="tensor", dynamic=False)
    return None
