"""`mode=explain`: what a key means, what it may be, and who gave it its value."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from pipeline import cli
from pipeline.config.key_help import meaning, place_of
from pipeline.config.root_schema import RootConfig
from pipeline.config.searchpath import own_configs
from pipeline.nested import leaves
from pipeline.registry import Registry
from tests.pipeline.config.test_shipped_configs import GROUPS
from tests.pipeline.tiny import composed, write_files

Explain = Callable[..., tuple[int, str, str]]

NAMESPACES = ("graph", "hydra")
FREE = ("config",)
"""Content that is another program's: the model's config.json."""


@pytest.fixture
def explain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Explain:
    """Exit code, output and errors (spaces as one) of the command in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def call(key: str, *words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["pipeline", "mode=explain", f"key={key}", *words])
        with pytest.raises(SystemExit) as left:
            cli.main()
        told = capsys.readouterr()
        return int(left.value.code or 0), " ".join(told.out.split()), " ".join(told.err.split())

    return call


def test_a_value_from_the_command_line_is_told_after_the_file_it_replaces(explain: Explain) -> None:
    code, out, _ = explain("scheme.weights.group_size", "scheme.weights.group_size=32")
    assert code == 0
    assert out.startswith("scheme.weights.group_size = 32 ")
    assert "type a whole number or null" in out
    assert "default null" in out and "allowed give a positive group_size" in out
    first = out.index("set by conf/scheme/w4a16_g64.yaml: 64 (scheme=w4a16_g64, chosen by config)")
    assert first < out.index("then by the command line: 32 (scheme.weights.group_size=32)")


def test_a_value_of_the_environment_is_told_as_it_is_written(
    explain: Explain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_NAME", "not-for-anyone")
    code, out, err = explain("save.name", "save.name=${oc.env:SOME_NAME}")
    assert code == 0
    assert "then by the command line: ${oc.env:SOME_NAME} (save.name=${oc.env:SOME_NAME})" in out
    assert "not-for-anyone" not in out + err


def test_a_chosen_group_is_told(explain: Explain) -> None:
    _, out, _ = explain("scheme.weights.num_bits", "scheme=w8a8")
    assert "= 8" in out
    assert "conf/scheme/w8a8.yaml: 8 (scheme=w8a8 on the command line)" in out


def test_an_experiment_is_told(explain: Explain) -> None:
    _, out, _ = explain("calibrate.propagate", "+experiment=group_sizes")
    assert "= original" in out and "conf/config.yaml: compressed" in out
    assert "then by conf/experiment/group_sizes.yaml: original" in out
    assert "allowed" in out and "compressed" in out


def test_a_teams_file_is_told(
    explain: Explain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_files(
        tmp_path / "ours", {"scheme/house.yaml": "defaults: [w8a16]\nformat: null\n"}
    )
    monkeypatch.setenv("PRESSWORK_CONF", str(folder))
    _, out, _ = explain("scheme.format", "scheme=house")
    assert "= null" in out and "then by ours/scheme/house.yaml: null" in out


def test_a_section_lists_its_keys_with_their_meaning(explain: Explain) -> None:
    _, out, _ = explain("modifier.gptq")
    assert "block_size = 128" in out and "Columns solved before" in out


def test_a_group_lists_its_options(explain: Explain) -> None:
    _, out, _ = explain("scheme")
    assert "w4a16_g64" in out and "mxfp4" in out


def test_a_key_that_no_file_sets_is_explained_all_the_same(explain: Explain) -> None:
    code, out, _ = explain("scheme.input_activations.observer", "scheme=fp8")
    assert code == 0 and "allowed choose one of" in out


@pytest.mark.parametrize(
    ("key", "told"),
    [
        ("scheme.weights.group_sise", "did you mean group_size?"),
        ("group_size", "did you mean scheme.weights.group_size?"),
        ("modifier.rtn.observer", "it is there with modifier=rtn"),
        ("shceme", "did you mean scheme?"),
    ],
)
def test_an_unknown_key_is_told_with_what_may_be_meant(
    explain: Explain, key: str, told: str
) -> None:
    code, _, err = explain(key)
    assert code == 1 and told in err


def test_no_key_is_an_error_and_a_key_needs_the_mode(explain: Explain) -> None:
    code, _, err = explain("null")
    assert code == 1 and "say key=KEY" in err
    code, _, err = explain("scheme", "mode=ls")
    assert code == 1 and "only mode=explain looks at a key" in err


def test_nothing_is_left_behind(explain: Explain, tmp_path: Path) -> None:
    explain("scheme")
    assert list(tmp_path.iterdir()) == []


FEW = [
    "scheme=nvfp4 dataset=text model=local kv_cache=fp8 eval=text modifier=[smoothquant,gptq]",
    "scheme=fp8_block dataset=chat model=gguf eval=standard modifier=rtn",
    "dataset=parquet model=qwen3_8b graph=data_free modifier=keep eval=none",
    "dataset=hub attention=fp8 modifier=gptq",
]


def every_choice() -> Iterator[str]:
    for group in GROUPS:
        if group not in ("experiment", "runner"):
            for path in sorted((own_configs() / group).glob("*.yaml")):
                yield f"{group}={path.stem}"


@pytest.mark.parametrize("choice", FEW)
def test_every_key_has_a_meaning(choice: str) -> None:
    assert silent(choice.split()) == []


@pytest.mark.slow
@pytest.mark.parametrize("choice", list(every_choice()))
def test_every_key_that_ships_has_a_meaning(choice: str) -> None:
    assert silent([choice]) == []


def silent(choices: list[str]) -> list[str]:
    """The keys of a config that nobody says the meaning of, with their class."""
    raw: Any = OmegaConf.to_container(composed(own_configs(), *choices, name="config"))
    registry, unused = Registry.load(), raw["graph"].get("unused", [])
    found = []
    for path, _ in leaves({k: v for k, v in raw.items() if k not in NAMESPACES}):
        key = tuple(step for step in path if not step.isdigit())
        free = any(step in FREE for step in key[:-1])
        if free or key[-1] == "kind" or key[0] in unused or ".".join(key) in unused:
            continue
        place = place_of(key, raw, RootConfig, registry)
        if place is None or not meaning(place.cls, place.name):
            where = f"{place.cls.__module__}:{place.cls.__name__}" if place else "no class"
            found.append(f"{'.'.join(key)} ({where})")
    return found
