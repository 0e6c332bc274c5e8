"""Kinds of files that strangers write: a sound one, how it is changed, and what reads it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from safetensors.torch import load_file, save_file

from pipeline.config.checked_loader import checked
from pipeline.config.hydra_errors import explain
from pipeline.config.recipe_import import translated
from pipeline.config.root import load_config
from pipeline.config.searchpath import own_configs
from pipeline.errors import ManyErrors
from pipeline.registry import Registry
from stages.formats.provenance import PROVENANCE, checked_files
from stages.load.gguf_convert import write_gguf
from stages.load.model_folder import look_into
from stages.load.model_kind import Work
from stages.model.blueprint_from_class import blueprint_of
from stages.tokens.datasets.json_rows import JsonRows
from stages.tokens.datasets.parquet import Parquet
from stages.tokens.tokenizer import Tokenizer
from stages.verify.standalone import inspect
from stages.weights.checkpoint_files import find_weights
from stages.weights.safetensors_source import SafetensorsSource
from stages.weights.source_manifest import SourceFile
from tests.hostile import mutate
from tests.pipeline.tiny import composed
from tests.stages.formats.fakes import FakeArtifact
from tests.stages.load.conftest import write_gguf_model
from tests.stages.recipes.texts import GPTQ_GROUPS, SMOOTH

INDEX = "model.safetensors.index.json"
EXPERIMENT = """# @package _global_
defaults:
  - override /scheme: w4a16
  - override /modifier: [smoothquant, gptq]
scheme:
  weights: {group_size: 32}
  ignore: ["lm_head", "re:.*layers\\\\.0\\\\..*"]
  groups:
    heads: {targets: ["re:.*o_proj"], weights: {num_bits: 8, type: int, strategy: channel}}
modifier:
  gptq: {block_size: 64}
dataset:
  num_samples: 8
calibrate:
  batch_size: 2
"""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """`file` of a sound folder is changed by `change`, and `read` reads the folder."""

    name: str
    file: str
    change: mutate.Mutation
    read: Callable[[Path], object]
    many: int
    """How many changed files the slow test tries."""
    sound: Callable[[Path], object] = lambda folder: None
    """Writes what belongs into the folder."""


def kinds(model: Path, checkpoint: Path) -> list[Kind]:
    """All kinds. `model` is the folder of a tiny llama, `checkpoint` that of a compressed one."""

    def copied(source: Path) -> Callable[[Path], object]:
        return lambda folder: shutil.copytree(source, folder, dirs_exist_ok=True)

    def one_file(folder: Path) -> None:
        tensors = {
            n: t for f in sorted(model.glob("*.safetensors")) for n, t in load_file(f).items()
        }
        save_file(tensors, folder / "model.safetensors")
        shutil.copyfile(model / "config.json", folder / "config.json")

    def text(name: str, content: str) -> Callable[[Path], object]:
        return lambda folder: (folder / name).write_text(content)

    rows = [{"text": f"document {n}", "n": n, "messages": [{"role": "user"}]} for n in range(5)]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    header = Kind(
        name="safetensors headers",
        file="model.safetensors",
        change=mutate.some_header,
        read=tensors_of,
        many=2500,
        sound=one_file,
    )
    config = Kind(
        name="configs",
        file="config.json",
        change=mutate.some_json,
        read=model_of,
        many=1200,
        sound=copied(model),
    )
    claims = replace(
        config, name="compressed configs", read=report_of, many=700, sound=copied(checkpoint)
    )
    tokenizer = replace(config, name="tokenizers", file="tokenizer.json", read=tokens_of, many=1000)
    recipe = Kind(
        name="recipes",
        file="recipe.yaml",
        change=mutate.some_lines,
        read=lambda folder: translated(folder / "recipe.yaml", Registry.load()),
        many=500,
        sound=text("recipe.yaml", GPTQ_GROUPS),
    )
    return [
        header,
        replace(config, name="indices", file=INDEX, many=1000),
        config,
        claims,
        replace(claims, name="provenances", file=PROVENANCE, read=checked_files, many=300),
        tokenizer,
        replace(tokenizer, name="tokenizer configs", file="tokenizer_config.json", many=500),
        Kind(
            name="GGUF",
            file="model.gguf",
            change=mutate.some_start,
            read=gguf_of,
            many=900,
            sound=lambda folder: write_gguf_model(folder / "model.gguf"),
        ),
        Kind(
            name="JSON lines",
            file="rows.jsonl",
            change=mutate.some_json_lines,
            read=lambda folder: list(JsonRows(path=str(folder / "rows.jsonl")).documents(folder)),
            many=1200,
            sound=text("rows.jsonl", lines),
        ),
        Kind(
            name="Parquet",
            file="rows.parquet",
            change=mutate.some_end,
            read=parquet_of,
            many=500,
            sound=lambda folder: pyarrow.parquet.write_table(
                pyarrow.Table.from_pylist(rows), folder / "rows.parquet"
            ),
        ),
        recipe,
        replace(recipe, name="smoothing recipes", many=300, sound=text("recipe.yaml", SMOOTH)),
        Kind(
            name="experiments",
            file="experiment/hostile.yaml",
            change=mutate.some_lines,
            read=config_of,
            many=300,
            sound=experiment_in,
        ),
    ]


def tensors_of(folder: Path) -> None:
    """Every tensor of the folder, as stages read them."""
    source = SafetensorsSource(find_weights(folder))
    source.read(list(source.specs()))


def model_of(folder: Path) -> None:
    """What a plan makes of a model folder."""
    found = look_into(folder, code=False)
    if found.problems:
        raise ManyErrors(found.problems)
    if found.config is not None and found.tensors is not None:
        blueprint_of(found.config, specs=found.tensors)


def report_of(folder: Path) -> dict[str, Any]:
    """`mode=verify checkpoint=FOLDER`."""
    return inspect(folder, lambda *_: None)


def tokens_of(folder: Path) -> list[list[int]]:
    """Ids of two short texts."""
    return list(Tokenizer(folder).samples(["one text", "another: 1, 2"], 16))


def gguf_of(folder: Path) -> None:
    """The result of loading a GGUF file, without its weights."""
    path = folder / "model.gguf"
    draft = FakeArtifact(path=folder / "scratch")
    draft.path.mkdir()
    work = Work(
        scratch=folder,
        progress=lambda *_: None,
        warn=lambda _: None,
        reads=lambda _: None,
    )
    file = SourceFile.of(path.name, path, "0" * 64)
    write_gguf(draft, path, file, identity="gguf:0", dtype="bfloat16", work=work)


def parquet_of(folder: Path) -> list[object]:
    """The documents of a Parquet file."""
    (folder / "scratch").mkdir()
    return list(Parquet(path=str(folder / "rows.parquet")).documents(folder / "scratch"))


def experiment_in(folder: Path) -> None:
    (folder / "experiment").mkdir()
    (folder / "experiment/hostile.yaml").write_text(EXPERIMENT)


def config_of(folder: Path) -> None:
    """The config that a command with this experiment has."""
    given = ["mode=plan", "device=cpu", f"hydra.searchpath=[file://{folder}]"]
    words = [*given, "+experiment=hostile"]
    try:
        with checked():
            cfg = composed(own_configs(), *words, name="config")
    except (HydraException, OmegaConfBaseException) as error:
        # as the command line does
        raise explain(
            error, words, lambda words: composed(own_configs(), *words, name="config")
        ) from error
    OmegaConf.set_struct(cfg, False)
    cfg.pop("hydra", None)
    load_config(cfg, Registry.load(), overrides=given)
