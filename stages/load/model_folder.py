"""Inspect a model folder (config, tokenizer, safetensors) and write it as a `load` result."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.key import digest
from pipeline.outside import FileState, state_of, unchanged
from pipeline.stage import Draft
from stages.load.code_files import code_files, code_warnings
from stages.load.model_kind import Work, each
from stages.load.side_files import check_config, copy_small, read_config, small_files
from stages.model.artifact_names import MODEL
from stages.quantized.catalog import dense_dtype, opened, quantization_of
from stages.quantized.source import QuantizedSource
from stages.weights.checkpoint_files import Layout, find_weights, home_of
from stages.weights.finite import check_finite
from stages.weights.hashes import identified, sha256_of
from stages.weights.safetensors_source import SafetensorsSource
from stages.weights.source import TensorSpec, WeightSource
from stages.weights.source_manifest import SourceFile, SourceManifest

HEX = frozenset("0123456789abcdef")
CODES = ("F8_", "F4", "U8", "I8")
NUMBERLESS = frozenset({"U16", "I16", "U32", "I32", "U64", "I64", "BOOL", "C64"})
PACKED = (".qweight", ".weight_packed", ".weight_scale_inv")


@dataclass(frozen=True, kw_only=True, slots=True)
class Folder:
    """An inspected model folder; parts that are broken are None, and among the problems.

    `quantization` is the stored weights' quantization_config and `quantized_by` the file that has
    it; both are None for dense weights. `tensors` are those of the dense model in any case.
    `lacking` names code files that the configs name and the folder has not. `states` are those in
    which the files were found, before any of them was read.
    """

    path: Path
    layout: Layout | None
    config: Mapping[str, Any] | None
    small: Mapping[str, Path]
    bytes: int | None
    tensors: Mapping[str, TensorSpec] | None
    quantization: Mapping[str, Any] | None
    quantized_by: str | None
    problems: tuple[UserError, ...]
    warnings: tuple[str, ...]
    lacking: tuple[str, ...] = ()
    states: Mapping[Path, FileState] = field(default_factory=dict)

    @property
    def files(self) -> Mapping[str, Path]:
        """All files of a folder without problems, by name."""
        return {**self.small, **sound(self).files}


def look_into(path: Path, *, code: bool) -> Folder:
    """Inspect a model folder and report all its problems at once. Reads headers, no weights."""
    problems: list[UserError] = []
    layout: Layout | None = None
    config: dict[str, Any] | None = None
    small: dict[str, Path] = {}
    named: tuple[str, ...] = ()
    size, tensors, stated = None, None, None
    warnings: tuple[str, ...] = ()
    states: dict[Path, FileState] = {}
    try:
        layout = find_weights(path)
        states.update((file, state_of(file)) for file in layout.files.values())
        tensors = SafetensorsSource(layout).specs()
        size = sum(states[file].size for file in layout.files.values())
    except UserError as error:
        problems.extend(each(error))
    if path.is_dir():
        try:
            named = code_files(path)
            small = small_files(path, code=code or bool(named))
            states.update((file, state_of(file)) for file in small.values())
            config = read_config(path / "config.json")
            problems.extend(check_config(config, trust_remote_code=code))
            stated = quantization_of(path, config)
        except UserError as error:
            problems.append(error)
    if layout is not None and config is not None and stated is not None and not problems:
        try:
            source = opened(SafetensorsSource(layout), stated[1], dense_dtype(config))
            tensors, warnings = source.specs(), tuple(left_behind(source))
        except UserError as error:
            problems.append(error)
    if stated is None:
        problems.extend(undeclared(path, tensors or {}))
    return Folder(
        path=path,
        layout=layout,
        config=config,
        small=small,
        bytes=size,
        tensors=tensors,
        quantization=stated[1] if stated else None,
        quantized_by=stated[0] if stated else None,
        problems=tuple(problems),
        warnings=(*warnings, *code_warnings(named, small, str(path))),
        lacking=tuple(name for name in named if name not in small),
        states=states,
    )


def write_folder(draft: Draft, folder: Folder, identity: str, work: Work) -> None:
    """Write source.json, small files and meta for a folder into a draft.

    Its weights are read once, so that one that is not finite is an error before anything runs.
    """
    layout = sound(folder)
    work.reads(folder.files.values())
    unchanged(folder.states, {path: state_of(path) for path in folder.files.values()})
    check_finite(
        SafetensorsSource(layout),
        progress=lambda share: work.progress(share, "looking for weights that are not finite"),
    )
    hashes = {path: blob_sha256(path) for path in layout.files.values()}
    unknown = [path for path, known in hashes.items() if known is None]
    hashes |= sha256_of(unknown)
    files = tuple(SourceFile.of(name, path, hashes[path]) for name, path in layout.files.items())
    config = folder.config or {}
    quantization = folder.quantization
    manifest = SourceManifest(
        kind="safetensors",
        identity=identity,
        files=files,
        tensors=layout.tensors,
        settings={}
        if quantization is None
        else {"quantization": quantization, "dtype": dense_dtype(config)},
    )
    manifest.write(draft)
    copy_small(folder.small, draft.path / MODEL)
    if (fault := _tokenizer_fault(draft.path / MODEL)) is not None:
        work.warn(
            f"the model's tokenizer is broken, and is copied as it is: {fault}; whoever loads the "
            "compressed model will need another"
        )
    specs = source_of(layout, config, quantization).specs().values()
    describe(draft, identity, config, sum(spec.bytes for spec in specs))
    if quantization is not None:
        stored = SafetensorsSource(layout).specs().values()
        draft.meta["quantized"] = quantization["quant_method"]
        draft.meta["stored_bytes"] = sum(spec.bytes for spec in stored)


def _tokenizer_fault(folder: Path) -> str | None:
    from stages.model.tokenizer.check import tokenizer_fault  # plans need no `tokenizers`

    return tokenizer_fault(folder)


def content_of(folder: Folder, *, rehash: bool = False) -> str:
    """The identity of a folder without problems: a digest of the sha256 of its files by name.

    Raises FileChanged if one of them is another by now than was inspected.
    """
    files = folder.files
    found = identified(files.values(), rehash=rehash)
    unchanged(folder.states, {path: each.state for path, each in found.items()})
    return "sha256:" + digest({name: found[path].sha256 for name, path in files.items()})


def check_content(files: Mapping[Path, str | None]) -> None:
    """Read files, and raise UserError for the first that has another sha256 than it should have."""
    found = identified(files, rehash=True)
    for path, expected in files.items():
        if expected is not None and found[path].sha256 != expected:
            raise UserError(
                f"{path} has other content than the hub says: its sha256 is "
                f"{found[path].sha256}, not {expected}",
                remedy=f"remove {path.resolve()} and run again: it is fetched anew",
            )


def source_of(
    layout: Layout, config: Mapping[str, Any], quantization: Mapping[str, Any] | None
) -> WeightSource:
    """The weights of a folder, dequantized; UserError if quantized ones cannot be read."""
    stored = SafetensorsSource(layout)
    if quantization is None:
        return stored
    return opened(stored, quantization, dense_dtype(config))


def describe(draft: Draft, identity: str, config: Mapping[str, Any], size: int) -> None:
    """Describe the loaded model in the manifest; `size`: bytes of all tensors as they are read."""
    architectures = config.get("architectures") or [None]
    draft.meta.update(
        identity=identity,
        architecture=architectures[0],
        model_type=config.get("model_type"),
        bytes=size,
    )


def sound(folder: Folder) -> Layout:
    """The layout of a folder; raises its first problem if there is one."""
    if folder.problems:
        raise folder.problems[0]
    if folder.layout is None:
        raise UserError(f"{folder.path} has no weights")
    return folder.layout


def left_behind(source: QuantizedSource) -> Iterator[str]:
    """A warning if calibrated scales of the source are not taken over."""
    if dropped := source.dropped:
        more = f" and {len(dropped) - 1} more" if len(dropped) > 1 else ""
        yield (
            f"scales of the source's key/value cache or attention are not taken over "
            f"({dropped[0]}{more}): kv_cache=fp8 or attention=fp8 calibrates new ones"
        )


def undeclared(path: Path, tensors: Mapping[str, TensorSpec]) -> Iterator[UserError]:
    """A problem if weights are stored as codes, but no file states their quantization."""
    for name, spec in tensors.items():
        if name.endswith(".weight") and spec.dtype in NUMBERLESS:
            yield UserError(
                f"{name} of {path} is stored as {spec.dtype}, and config.json has no "
                "quantization_config that says what its numbers mean",
                remedy="weights are F16, BF16 or F32: convert the model, or put it there",
            )
            return
        codes = spec.dtype.startswith(CODES) and name.endswith(".weight")
        if codes or name.endswith(PACKED):
            yield UserError(
                f"{name} of {path} is stored quantized ({spec.dtype}), but config.json has no "
                "quantization_config",
                remedy="put it there, at the top level, as the writer of the model meant it",
            )
            return


def blob_sha256(path: Path) -> str | None:
    """The sha256 of a weight file in the hub's cache, which names its blobs by it; else None."""
    blob = path.resolve()
    inside_cache = blob.parent.name == "blobs" and home_of(path.parent) == blob.parent.parent
    return blob.name if inside_cache and len(blob.name) == 64 and set(blob.name) <= HEX else None
