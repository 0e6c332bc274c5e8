"""Check a compressed-tensors checkpoint by itself, without the original (`mode=verify`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from compressed_tensors.quantization import QuantizationScheme

from pipeline.errors import ManyErrors, UserError
from stages.formats.compressed_tensors_bridge import parse
from stages.formats.module_tensors import INPUT_PARTS, MISFITS, expected_parts
from stages.formats.pack import unpack
from stages.formats.provenance import checked_files
from stages.model.blueprint import LinearSpec
from stages.model.families import fused_groups
from stages.model.tokenizer.check import tokenizer_fault
from stages.schemes.resolve import matches
from stages.verify.known_config import unknown_parts
from stages.verify.run import check_index, checked
from stages.verify.scale_checks import unusual_scales, wrong_scales
from stages.verify.transformers_check import NAME, verdict_of
from stages.verify.untrusted_folder import CACHE_SCALES, Folder, folder_of

PLAIN_SCALES = ("BF16", "F16", "F32")


def inspect(path: Path, progress: Callable[[float, str], None]) -> dict[str, Any]:
    """Run all checks of a folder: {"ok", "checks": [{"name", "ok", "detail"}]}.

    `ok` of a check is null if it was not run.
    """
    progress(0.0, "files")
    proven = checked_files(path)
    try:
        folder = folder_of(path)
    except (UserError, ManyErrors) as error:
        failed = {"name": "readable", "ok": False, "detail": str(error)}
        return {"ok": False, "checks": [*([proven] if proven["ok"] is not None else []), failed]}
    todo: dict[str, Callable[[Folder], Iterator[str]]] = {
        "index": check_index,
        "tokenizer": check_tokenizer,
        "config": check_config,
        "covered by the config": check_covered,
        "parts of compressed modules": check_parts,
        "tensors of the model": check_model,
        "ignore": check_ignore,
        "fused partners": check_partners,
        "scales": check_scales,
        "weights": check_weights,
    }
    if not any(path.glob("tokenizer*.json")):
        todo.pop("tokenizer")
    if folder.config is None:
        todo = {name: todo[name] for name in ("index", "tokenizer", "config") if name in todo}
    checks: list[dict[str, Any]] = [
        proven,
        {"name": "readable", "ok": True, "detail": f"{len(folder.specs)} tensors"},
    ]
    for position, (name, check) in enumerate(todo.items()):
        progress(position / len(todo), name)
        if name == "tensors of the model" and folder.blueprint is None and folder.no_class:
            checks.append({"name": name, "ok": None, "detail": folder.no_class})
        else:
            checks.append(checked(name, check, folder))
            if name == "scales" and checks[-1]["ok"]:
                checks[-1]["detail"] = unusual(folder)
    if folder.config is not None and folder.blueprint is not None:
        progress(1.0, NAME)
        form = (folder.blueprint, folder.quantized)
        checks.append(verdict_of(folder.settings, folder.specs, *form).check())
    return {"ok": all(check["ok"] is not False for check in checks), "checks": checks}


def check_scales(folder: Folder) -> Iterator[str]:
    """Every scale is finite, and positive where another sign or 0 would not be sound."""
    yield from wrong_scales(folder, folder.quantized)


def unusual(folder: Folder) -> str:
    """What presswork would not have written, in words; "" if there is nothing."""
    found = unusual_scales(folder)
    more = f" and {len(found) - 1} more" if len(found) > 1 else ""
    return f"unusual, but sound: {found[0]}{more}" if found else ""


def check_tokenizer(folder: Folder) -> Iterator[str]:
    """The tokenizer's files can be read."""
    if (fault := tokenizer_fault(folder.folder)) is not None:
        yield fault


def check_config(folder: Folder) -> Iterator[str]:
    """config.json has a `quantization_config` that compressed-tensors can parse."""
    given = folder.settings.get("quantization_config")
    if given is None:
        yield "config.json has no quantization_config"
        return
    if not isinstance(given, dict):
        yield "quantization_config is no JSON object"
        return
    method = given.get("quant_method")
    if method != "compressed-tensors":
        yield f"quant_method is {method!r}, not 'compressed-tensors'"
        return
    yield from unknown_parts(given)
    parsed = parse(given)
    status = getattr(parsed.quantization_status, "value", None)
    if status != "compressed":
        yield f"quantization_status is {status!r}"


def check_covered(folder: Folder) -> Iterator[str]:
    """Every module stored compressed has a group, and every Linear with a group is compressed."""
    for prefix in folder.uncovered:
        yield f"{prefix} is stored compressed, but no group of quantization_config is for it"
    routers = folder.routers
    for linear in folder.linears():
        if linear.prefix in folder.compressed or folder.is_ignored(linear):
            continue
        if linear.name in routers:
            continue
        try:
            folder.schemes.of(linear.prefix, linear.kind)
        except UserError:
            continue
        yield f"{linear.prefix} is stored dense, but a group of quantization_config is for it"


def check_parts(folder: Folder) -> Iterator[str]:
    """Every compressed module has the tensors of its format, in their shapes and dtypes."""
    dense = folder.dense()
    for prefix, scheme in folder.quantized.items():
        try:
            shape = dense.shape(prefix)
        except (KeyError, UserError) as error:
            yield f"{prefix} has neither weight nor weight_packed ({error})"
            continue
        wanted = expected_parts(scheme, shape, folder.dtype_name)
        for part, (size, dtype) in wanted.items():
            found = folder.specs.get(f"{prefix}.{part}")
            if part == "weight" and prefix in folder.turned:
                size = size[::-1]
            if found is None:
                yield f"{prefix}.{part} is missing"
            elif found.shape != size or not _fits(part, found.dtype, dtype):
                yield (
                    f"{prefix}.{part} is {found.dtype} {list(found.shape)} instead of "
                    f"{dtype} {list(size)}"
                )
        for part in sorted(folder.compressed[prefix] - wanted.keys() - {"bias", "weight_g_idx"}):
            yield f"{prefix}.{part} is no part of format {scheme.format}"


def _fits(part: str, found: str, wanted: str) -> bool:
    # engines read scales of any floating dtype where the format does not fix one
    loose = part in ("weight_scale", "input_scale") and wanted in PLAIN_SCALES
    return found == wanted or (loose and found in PLAIN_SCALES)


def check_model(folder: Folder) -> Iterator[str]:
    """Every tensor that the model's class needs is present in its shape, and nothing else."""
    if folder.blueprint is None:
        yield str(folder.problem)
        return
    known = folder.blueprint.config.get("num_hidden_layers", len(folder.blueprint.layers))
    for name in folder.blueprint.carried:
        leaf = name.rpartition(".")[2]
        if leaf in CACHE_SCALES or name.startswith("mtp.") or f".layers.{known}." in name:
            continue  # scales of the cache, and extra layers that predict more tokens
        yield f"{name} belongs to nothing in the model"


def check_ignore(folder: Folder) -> Iterator[str]:
    """Every entry of `ignore` matches a module, and none that is compressed."""
    modules = folder.modules()
    for pattern in folder.parsed().ignore or []:
        hit = [m for m in modules if matches(pattern, (m.name, m.prefix), m.kind)]
        if not hit:
            yield f"{pattern!r} matches no module"
        for module in hit:
            if module.prefix in folder.compressed:
                yield f"{pattern!r} matches {module.prefix}, which is stored compressed"


def check_partners(folder: Folder) -> Iterator[str]:
    """Modules that engines run as one share their format and their global scales."""
    specs = [LinearSpec(name=p, prefix=p, in_features=0, out_features=0) for p in _all(folder)]
    for group in fused_groups(specs):
        schemes = [folder.quantized.get(prefix) for prefix in group]
        if len({_signature(scheme) for scheme in schemes}) > 1:
            yield f"{', '.join(group)} run as one module, but are quantized differently"
            continue
        for part in ("weight_global_scale", "input_global_scale"):
            names = [f"{prefix}.{part}" for prefix in group]
            if any(name not in folder.specs for name in names):
                continue
            found = folder.saved.read(names)
            if len({tuple(tensor.flatten().tolist()) for tensor in found.values()}) > 1:
                yield f"{', '.join(group)} run as one module, but have different {part}s"


def _all(folder: Folder) -> list[str]:
    stored = {name.rpartition(".")[0] for name in folder.specs if name.endswith(".weight")}
    return sorted(stored | folder.compressed.keys())


def _signature(scheme: QuantizationScheme | None) -> str | None:
    return None if scheme is None else scheme.model_dump_json(exclude={"targets"})


def check_weights(folder: Folder) -> Iterator[str]:
    """compressed-tensors unpacks every module to finite numbers."""
    dense = folder.dense()
    for prefix, scheme in folder.quantized.items():
        stored = dense.stored(prefix)
        parts = {part: tensor for part, tensor in stored.items() if part not in INPUT_PARTS}
        try:
            finite = bool(unpack(parts, scheme).isfinite().all())
        except MISFITS as error:
            yield f"{prefix} cannot be unpacked: {type(error).__name__}: {error}"
            continue
        if not finite:
            yield f"{prefix} unpacks to a weight with non-finite entries"
