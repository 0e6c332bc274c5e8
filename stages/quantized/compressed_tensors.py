"""Read compressed-tensors checkpoints of any format, including several formats in one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pipeline.errors import UserError
from stages.formats.input_params import InputParams
from stages.quantized.source import REMEDY, Module, QuantizedSource, part_of
from stages.schemes.quant_args import QArgs
from stages.weights.source import TensorSpec, WeightSource

if TYPE_CHECKING:
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
    from torch import Tensor

    from stages.formats.decompressed_source import Decompressed
    from stages.quantized.stored_weight import Stored

PACKED = "pack-quantized"
CACHE = ("q_scale", "k_scale", "v_scale")
UNREAD = ("sparse-bitmask", "sparse-24-bitmask", "marlin-24")


class CompressedSource(QuantizedSource):
    """A quantized source over `stages.formats.decompressed_source`, with the values of loaders."""

    def __init__(self, source: WeightSource, config: Mapping[str, Any], dtype: str) -> None:
        super().__init__(source, config, dtype)
        sparse = part_of(config, "sparsity_config").get("format", "dense")
        layouts = [config.get("format"), sparse]
        if unread := [layout for layout in layouts if layout in UNREAD]:
            raise UserError(
                f"the checkpoint has the format {unread[0]!r}, which is not read",
                remedy="give the model that it was made from",
            )
        if part_of(config, "transform_config").get("config_groups"):
            raise UserError(
                "the checkpoint has transforms that engines apply while they run "
                "(transform_config): without them its weights are not the model",
                remedy="give the model that it was made from",
            )

    @cached_property
    def unpacked(self) -> Decompressed:
        """The same checkpoint, decompressed as loaders do."""
        import torch

        from stages.formats.decompressed_source import Decompressed

        return Decompressed(self.source, self.config, getattr(torch, self.dtype))

    @property
    def schemes(self) -> Mapping[str, QuantizationScheme]:
        """The scheme of every compressed module by its name in the checkpoint."""
        return self.unpacked.schemes

    def find(self, specs: Mapping[str, TensorSpec]) -> Iterator[Module]:
        from stages.formats.module_tensors import INPUT_PARTS, PARTS

        dense = self.unpacked.specs()
        for prefix, scheme in self.schemes.items():
            if scheme.weights is None:
                raise UserError(
                    f"{prefix} has a weight_scale, but its group quantizes no weights",
                    remedy=REMEDY,
                )
            shape = dense[f"{prefix}.weight"].shape
            parts = [p for p in (*PARTS, *INPUT_PARTS) if f"{prefix}.{p}" in specs]
            yield Module(
                prefix=prefix,
                shape=(shape[0], shape[1]),
                grid=numbers_of(scheme.weights),
                parts=tuple(parts),
            )

    def drops(self, name: str) -> bool:
        """Scales of the KV cache and of quantized attention are no part of the dense model."""
        prefix, _, part = name.rpartition(".")
        return part in CACHE and prefix.endswith(("attn", "attention"))

    def read(self, names: Iterable[str], *, device: str = "cpu") -> dict[str, Tensor]:
        """Dense tensors, in the order of `names`."""
        wanted = list(names)
        prefixes = {name: self._prefix(name) for name in wanted}
        # for packed integers our own unpacking gives the same numbers, and is much faster
        by_library = [n for n, p in prefixes.items() if p and self.schemes[p].format != PACKED]
        tensors = self.unpacked.read(by_library, device=device) if by_library else {}
        tensors |= super().read([n for n in wanted if n not in tensors], device=device)
        return {name: tensors[name] for name in wanted}

    def decode(self, module: Module, parts: Mapping[str, Tensor]) -> Stored:
        from stages.quantized.stored_weight import Stored

        scheme = self.schemes[module.prefix]
        columns = parts.get("weight_g_idx")
        scale = parts["weight_scale"]
        return Stored(
            grid=module.grid,
            codes=_codes(module, parts, scheme),
            scale=scale.reshape(1) if scale.numel() == 1 else scale,
            zero_point=_zero_point(module, parts, scheme),
            global_scale=parts.get("weight_global_scale"),
            columns=None if columns is None else columns.long(),
        )

    def inputs(self, prefix: str) -> InputParams:
        from stages.formats.module_tensors import INPUT_PARTS

        parts = [part for part in INPUT_PARTS if part in self.modules[prefix].parts]
        tensors = self.source.read([f"{prefix}.{part}" for part in parts]) if parts else {}
        return InputParams(**{p.removeprefix("input_"): tensors[f"{prefix}.{p}"] for p in parts})


def numbers_of(args: QuantizationArgs) -> QArgs:
    """The fields of compressed-tensors' quantization args that define the grid of a weight."""
    strategy = str(getattr(args.strategy, "value", args.strategy))
    scale = str(args.scale_dtype).removeprefix("torch.")
    return QArgs(
        num_bits=args.num_bits,
        type=str(getattr(args.type, "value", args.type)),
        symmetric=args.symmetric,
        strategy=strategy,
        block_structure=args.block_structure,
        group_size=args.group_size if strategy in ("group", "tensor_group") else None,
        scale_dtype=scale if scale in ("float8_e4m3fn", "uint8") else None,
    )


def _codes(module: Module, parts: Mapping[str, Tensor], scheme: QuantizationScheme) -> Tensor:
    import torch
    from compressed_tensors.compressors.nvfp4.helpers import unpack_fp4_from_uint8

    from stages.formats.fp6_packing import FORMAT as FP6
    from stages.formats.fp6_packing import values_of_bytes
    from stages.quantized.unpack_bits import unpacked

    rows, columns = module.shape
    if "weight_packed" not in parts:
        return parts["weight"]
    packed = parts["weight_packed"]
    if scheme.format == PACKED:
        return unpacked(packed.T, module.grid.num_bits, columns).T.contiguous()
    if scheme.format == FP6:
        return values_of_bytes(packed)
    codes: Tensor = unpack_fp4_from_uint8(packed, rows, columns, dtype=torch.float32)
    return codes


def _zero_point(
    module: Module, parts: Mapping[str, Tensor], scheme: QuantizationScheme
) -> Tensor | None:
    import torch

    from stages.quantized.unpack_bits import unpacked

    zero = parts.get("weight_zero_point")
    if zero is None or module.grid.symmetric:
        return None
    if scheme.format == PACKED and zero.dtype == torch.int32:
        return unpacked(zero, module.grid.num_bits, module.shape[0])
    return zero.reshape(1) if zero.numel() == 1 else zero
