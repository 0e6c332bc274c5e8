"""Run `verify`: all checks of a checkpoint; none stops the ones that follow."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from pipeline.errors import StageFailed, UserError
from pipeline.stage import Task
from stages.formats.module_tensors import expected_parts, kept_wide
from stages.formats.quantization_config import unquantized, untied
from stages.schemes.engine_support import vllm_support
from stages.schemes.resolve import Resolved, matches_name
from stages.schemes.scheme import SchemeGroup
from stages.verify.checkpoint_under_test import Stored, Subject, subject_of
from stages.verify.scale_checks import check_scales
from stages.verify.stage import VerifyConfig
from stages.verify.tensor_checks import check_dense, check_plain, check_weights
from stages.weights.checkpoint_files import LONGEST_INDEX, parse_index
from stages.weights.dtypes import dtype_name
from stages.weights.safetensors_file import read_header
from stages.weights.untrusted_json import read_json

Check = Callable[[Subject], Iterator[str]]
T = TypeVar("T")
INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
SHOWN = 4
NOT_HERE = "loading in vLLM and SGLang: run tests/engines where those are installed"


def run(config: VerifyConfig, task: Task) -> None:
    """Write verify.json; raise StageFailed where a check fails."""
    layers = [made for name, made in task.inputs.items() if name.startswith("layers")]
    free = all(made.meta["recipe"]["calibration"] is None for made in layers)
    report, engines = verify(task, config, codes=config.codes(data_free=free))
    draft = task.outputs["out"]
    draft.write_json("verify.json", report)
    draft.meta["result"] = {"verify": report, "engines": engines}
    failed = [check for check in report["checks"] if check["ok"] is False]
    if failed:
        told = "\n".join(f"    {check['name']}: {check['detail']}" for check in failed)
        raise StageFailed(
            f"the checkpoint fails {len(failed)} of {len(report['checks'])} checks:\n{told}",
            remedy="do not use it; run again, and report this with the run folder",
        )


def verify(
    task: Task, config: VerifyConfig, *, codes: bool
) -> tuple[dict[str, Any], dict[str, Any]]:
    """{"ok", "checks": [{"name", "ok", "detail"}]} and what is known of engines by name.

    `ok` of a check is null if it was not run. With `codes` weights in plain formats are read by
    loops of our own.
    """
    options, checks = config.verify, []
    try:
        subject = subject_of(task, codes)
    except UserError as error:
        checks.append({"name": "readable", "ok": False, "detail": str(error)})
        return {"ok": False, "checks": checks}, {}
    checks.append({"name": "readable", "ok": True, "detail": str(len(subject.specs)) + " tensors"})
    todo: dict[str, Check] = {
        "index": check_index,
        "names": check_names,
        "shapes and dtypes": check_shapes,
        "config": check_config,
        "ignore": check_ignore,
        "tied weights": check_tied,
        "small files": check_files,
        "scales": check_scales,
        "weights": check_plain if subject.plain else check_weights,
    }
    if options.original:
        todo["unchanged tensors"] = check_dense
    for index, (name, check) in enumerate(todo.items()):
        task.progress(index / len(todo), name)
        checks.append(checked(name, check, subject))
    engines: dict[str, Any] = {"vllm": vllm_support(config.scheme)}
    if config.loads and subject.claims is not None:
        from stages.verify.transformers_check import verdict_of

        task.progress(1.0, "loading in transformers")
        form = (subject.blueprint, subject.quantized)
        verdict = verdict_of(subject.settings, subject.on_disk, *form)
        checks.append(verdict.check())
        engines["transformers"] = verdict.to_json()
    skipped = {"unchanged tensors": "verify.original is false"} if not options.original else {}
    skipped["engines"] = NOT_HERE
    checks += [{"name": name, "ok": None, "detail": why} for name, why in skipped.items()]
    return {"ok": all(check["ok"] is not False for check in checks), "checks": checks}, engines


def checked(name: str, check: Callable[[T], Iterator[str]], subject: T) -> dict[str, Any]:
    """The result of a check as an entry of the report: its first faults and how many more."""
    try:
        wrong = list(check(subject))
    except UserError as error:
        wrong = [str(error)]
    more = f"; and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
    return {"name": name, "ok": not wrong, "detail": "; ".join(wrong[:SHOWN]) + more}


def check_index(subject: Stored) -> Iterator[str]:
    """The index lists every tensor of every file, in its file, and the right total size."""
    path = subject.folder / INDEX
    if not path.is_file():
        if not (subject.folder / SINGLE).is_file():
            yield f"there is no {INDEX}"
        return
    listed = parse_index(path)
    metadata = read_json(path, longest=LONGEST_INDEX).get("metadata")
    found: dict[str, str] = {}
    for file in sorted(subject.folder.glob("*.safetensors")):
        for name in read_header(file).places:
            if name in found:
                yield f"{name} is in {found[name]} and in {file.name}"
            found[name] = file.name
    for name in found.keys() - listed.keys():
        yield f"{name} is in {found[name]}, but not in the index"
    for name in listed.keys() & found.keys():
        if listed[name] != found[name]:
            yield f"{name} is in {found[name]}, not in {listed[name]}"
    total = sum(spec.bytes for spec in subject.specs.values())
    stated = metadata.get("total_size", total) if isinstance(metadata, dict) else total
    if stated != total:
        yield f"total_size is {stated}, the tensors have {total} bytes"


def check_names(subject: Subject) -> Iterator[str]:
    """Every tensor of the original is present, dense or compressed, and nothing else."""
    expected: set[str] = set(subject.caches)
    for name in _original_names(subject):
        prefix, _, part = name.rpartition(".")
        if part == "weight" and prefix in subject.quantized:
            scheme, shape = subject.quantized[prefix], subject.original[name].shape
            parts = expected_parts(scheme, shape, dtype_name(subject.dtype))
            expected.update(f"{prefix}.{local}" for local in parts)
        else:
            expected.add(name)
    for name in sorted(expected - subject.specs.keys()):
        yield f"{name} is missing"
    for name in sorted(subject.specs.keys() - expected):
        yield f"{name} belongs to nothing in the original"
    chosen = set() if subject.plain else subject.chosen()
    for prefix in sorted(chosen ^ subject.quantized.keys()):
        state = "compressed" if prefix in chosen else "left dense"
        yield f"{prefix} was {state}, but the checkpoint says otherwise"


def check_shapes(subject: Subject) -> Iterator[str]:
    """Shapes and dtypes are those of the format, or of the original."""
    for name in _original_names(subject):
        prefix, _, part = name.rpartition(".")
        spec = subject.original[name]
        wanted = {name: (spec.shape, spec.dtype)}
        if part == "weight" and prefix in subject.quantized:
            scheme = subject.quantized[prefix]
            parts = expected_parts(scheme, spec.shape, dtype_name(subject.dtype))
            wanted = {f"{prefix}.{local}": value for local, value in parts.items()}
        for stored, (shape, dtype) in wanted.items():
            found = subject.specs.get(stored)
            if found is None or (found.shape, found.dtype) == (shape, dtype):
                continue
            if found.shape != shape or not kept_wide(
                stored, found.dtype, subject.quantized.get(prefix)
            ):
                yield (
                    f"{stored} is {found.dtype} {list(found.shape)} instead of "
                    f"{dtype} {list(shape)}"
                )


def check_config(subject: Subject) -> Iterator[str]:
    """config.json keeps the original's fields, and what it adds is valid."""
    expected = dict(subject.blueprint.config)
    if subject.untied:
        expected = untied(expected)
    for field, value in expected.items():
        if field != "quantization_config" and subject.settings.get(field) != value:
            yield f"{field} is {subject.settings.get(field)!r} instead of {value!r}"
    if subject.claims is None:
        if subject.quantized or (subject.chosen() and not subject.plain):
            yield "modules are compressed, but there is no quantization_config"
        return
    if subject.plain:
        yield "weights were to be saved dense, but there is a quantization_config"
    if subject.claims.method != "compressed-tensors":
        yield f"quant_method is {subject.claims.method!r}"
    if subject.claims.status != "compressed":
        yield f"quantization_status is {subject.claims.status!r}"


def check_ignore(subject: Subject) -> Iterator[str]:
    """`ignore` names exactly the Linears that are dense."""
    if subject.claims is None:
        return
    listed = subject.claims.ignore
    none = Resolved(group="", scheme=SchemeGroup())
    quantized = {
        linear.name: none
        for linear in subject.blueprint.linears()
        if linear.prefix in subject.quantized
    }
    dense = unquantized(subject.blueprint.linears(), quantized, subject.blueprint)
    for name in dense:
        if not any(matches_name(pattern, (name,)) for pattern in listed):
            yield f"{name} is dense, but not in ignore"
    for pattern in listed:
        if not any(matches_name(pattern, (name,)) for name in dense):
            yield f"{pattern} is in ignore, but is no dense Linear"


def check_tied(subject: Subject) -> Iterator[str]:
    """A tied lm_head needs no tensor of its own; an untied one has one, if the model has any."""
    if not subject.blueprint.head:
        return
    tied = bool(subject.settings.get("tie_word_embeddings", subject.blueprint.tied))
    if subject.blueprint.tied and not tied:
        yield "tie_word_embeddings is false, in the original the head is the embedding"
    if subject.untied and tied:
        yield "tie_word_embeddings is true, but head and embedding are compressed differently"
    head = f"{subject.blueprint.head}.weight"
    stored = subject.blueprint.outside.get(head, head)
    if stored not in subject.specs and stored.removesuffix(".weight") not in subject.quantized:
        yield f"{stored}, the weight of the head, is missing"


def check_files(subject: Subject) -> Iterator[str]:
    """The small files that readers and people need are present."""
    for name in ("recipe.yaml", "provenance.json", "README.md"):
        if not (subject.folder / name).is_file():
            yield f"there is no {name}"


def _original_names(subject: Subject) -> list[str]:
    blueprint = subject.blueprint
    layers = (name for layer in blueprint.layers for name in layer.tensors.values())
    names = dict.fromkeys([*blueprint.outside.values(), *blueprint.carried, *layers])
    return [name for name in names if name not in blueprint.joins]
