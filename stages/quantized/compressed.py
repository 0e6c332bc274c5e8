"""compressed-tensors checkpoints as sources: every format, also several in one checkpoint."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pipeline.errors import UserError
from stages.formats.qargs import QArgs
from stages.quantized.source import REMEDY, Module, QuantizedSource
from stages.weights.source import TensorSpec, WeightSource

if TYPE_CHECKING:
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
    from torch import Tensor

    from stages.formats.decompress import Decompressed
    from stages.formats.pack import InputParams
    from stages.quantized.stored import Stored

CACHE = ("q_scale", "k_scale", "v_scale")
UNREAD = ("sparse-bitmask", "sparse-24-bitmask", "marlin-24")


class CompressedSource(QuantizedSource):
    """Reads what `stages.formats.decompress` reads; values are those that loaders unpack."""

    def __init__(self, source: WeightSource, config: Mapping[str, Any], dtype: str) -> None:
        super().__init__(source, config, dtype)
        sparse = (config.get("sparsity_config") or {}).get("format", "dense")
        layouts = [config.get("format"), sparse]
        if unread := [layout for layout in layouts if layout in UNREAD]:
            raise UserError(
                f"the checkpoint has the format {unread[0]!r}, which is not read",
                remedy="give the model that it was made from",
            )
        if (config.get("transform_config") or {}).get("config_groups"):
            raise UserError(
                "the checkpoint has transforms that engines apply while they run "
                "(transform_config): without them its weights are not the model",
                remedy="give the model that it was made from",
            )

    @cached_property
    def unpacked(self) -> Decompressed:
        """The same checkpoint as loaders unpack it."""
        import torch

        from stages.formats.decompress import Decompressed

        return Decompressed(self.source, self.config, getattr(torch, self.dtype))

    def find(self, specs: Mapping[str, TensorSpec]) -> Iterator[Module]:
        from stages.formats.decompress import INPUT_PARTS, PARTS

        dense = self.unpacked.specs()
        for prefix, scheme in self.unpacked.schemes.items():
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
        if any(self._prefix(name) for name in wanted):
            found = self.unpacked.read(wanted, device=device)
            return {name: found[name] for name in wanted}
        return self.source.read(wanted, device=device)

    def decode(self, module: Module, parts: Mapping[str, Tensor]) -> Stored:
        from stages.quantized.stored import Stored

        scheme = self.unpacked.schemes[module.prefix]
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
        from stages.formats.decompress import INPUT_PARTS
        from stages.formats.pack import InputParams

        there = [part for part in INPUT_PARTS if part in self.modules[prefix].parts]
        read = self.source.read([f"{prefix}.{part}" for part in there]) if there else {}
        return InputParams(**{p.removeprefix("input_"): read[f"{prefix}.{p}"] for p in there})


def numbers_of(args: QuantizationArgs) -> QArgs:
    """What of compressed-tensors' arguments says which numbers a weight may be."""
    plain = args.model_dump(mode="json")
    kept = ("num_bits", "type", "symmetric", "strategy", "block_structure")
    grouped = plain["strategy"] in ("group", "tensor_group")
    scale = str(plain["scale_dtype"]).removeprefix("torch.")
    return QArgs(
        **{name: plain[name] for name in kept},
        group_size=plain["group_size"] if grouped else None,
        scale_dtype=scale if scale in ("float8_e4m3fn", "uint8") else None,
    )


def _codes(module: Module, parts: Mapping[str, Tensor], scheme: QuantizationScheme) -> Tensor:
    import torch
    from compressed_tensors.compressors.nvfp4.helpers import unpack_fp4_from_uint8
    from compressed_tensors.compressors.pack_quantized.helpers import unpack_from_int32

    rows, columns = module.shape
    codes: Tensor
    if "weight_packed" not in parts:
        codes = parts["weight"]
    elif scheme.format == "pack-quantized":
        bits = module.grid.num_bits
        codes = unpack_from_int32(parts["weight_packed"], bits, torch.Size((rows, columns)))
    else:
        codes = unpack_fp4_from_uint8(parts["weight_packed"], rows, columns, dtype=torch.float32)
    return codes


def _zero_point(
    module: Module, parts: Mapping[str, Tensor], scheme: QuantizationScheme
) -> Tensor | None:
    import torch
    from compressed_tensors.compressors.pack_quantized.helpers import unpack_from_int32

    zero = parts.get("weight_zero_point")
    if zero is None or module.grid.symmetric:
        return None
    if scheme.format == "pack-quantized" and zero.dtype == torch.int32:
        shape = torch.Size((module.shape[0], parts["weight_scale"].shape[-1]))
        unpacked: Tensor = unpack_from_int32(zero, module.grid.num_bits, shape, packed_dim=0)
        return unpacked
    return zero.reshape(1) if zero.numel() == 1 else zero
