from __future__ import annotations

import os
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from pipeline.config.root import load_config
from pipeline.errors import ManyErrors, UserError
from pipeline.machine.devices import resolve_device
from pipeline.runs.recorded import write_config
from tests.pipeline.machine.fake_driver import MODELS, fake_gpus
from tests.pipeline.tiny import (
    FILES,
    Make,
    Reverse,
    Upper,
    Words,
    composed,
    loaded,
    tiny_registry,
    write_files,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_files(tmp_path / "conf", FILES)


def told(folder: Path, *overrides: str) -> list[str]:
    with pytest.raises(UserError) as caught:
        loaded(folder, *overrides)
    found = caught.value
    return [str(e) for e in (found.errors if isinstance(found, ManyErrors) else (found,))]


def test_sites_come_with_their_stages_built(folder: Path) -> None:
    config = loaded(folder, "runner.threads=3")
    make, use = config.graph.sites["make"], config.graph.sites["use"]
    assert isinstance(make.stage, Make)
    assert make.stage.config.data == Words(count=3)
    assert (make.final, make.publish, make.each) == (False, None, None)
    assert (use.final, use.publish, use.inputs) == (True, "used", {"words": "make"})
    assert (use.stage.config.times, use.stage.config.threads) == (2, 3)
    assert config.sections["use"] == {"times": 2}


def test_what_depends_on_the_machine_is_filled_in(folder: Path, tmp_path: Path) -> None:
    config = load_config(composed(folder), tiny_registry(), cwd=tmp_path)
    assert config.numerics.threads == config.runner.threads == len(os.sched_getaffinity(0))
    assert (config.device, config.numerics.device) == ("cpu", "cpu")
    assert config.store.dir == str(tmp_path / "outputs/store")
    assert config.runs == (tmp_path / "outputs/runs",)


def test_auto_is_the_cpu_without_a_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.machine.devices.gpus", tuple)
    assert resolve_device("auto") == "cpu"
    assert resolve_device("cuda") == "cuda"


def test_only_a_plan_of_another_machine_needs_no_gpu_here(folder: Path) -> None:
    with fake_gpus():
        planned = loaded(folder, "mode=plan", "device=cuda:1", "+plan.elsewhere=true")
        assert planned.numerics.device == "cuda:1"
        for mode in ("run", "plan", "sensitivity"):
            (problem,) = told(folder, f"mode={mode}", "device=cuda:1")
            assert problem.startswith("device is 'cuda:1', but the NVIDIA driver finds no GPU")
        (problem,) = told(folder, "mode=run", "device=cuda:1", "+plan.elsewhere=true")
    assert problem.startswith("device is 'cuda:1', but the NVIDIA driver finds no GPU here")
    with fake_gpus(*MODELS):
        assert loaded(folder, "mode=run", "device=cuda:1").device == "cuda:1"


@pytest.mark.parametrize(
    ("choice", "steps"),
    [
        ("[upper,reverse]", (Upper(strength=0.5), Reverse())),
        ("[reverse,upper]", (Reverse(), Upper(strength=0.5))),
        ("reverse", (Reverse(),)),
        ("[]", ()),
    ],
)
def test_modifiers_keep_the_order_of_the_command_line(
    folder: Path, choice: str, steps: tuple[object, ...]
) -> None:
    config = loaded(folder, f"modifier={choice}")
    assert config.graph.sites["make"].stage.config.steps == steps


def test_an_added_key_that_a_stage_does_not_know_is_told_in_the_section(folder: Path) -> None:
    assert told(folder, "+data.cuont=4") == [
        "data.cuont: there is no such key\n"
        "  did you mean count? the keys of data are count, language"
    ]


def test_an_added_key_that_nothing_refers_to_is_an_error(folder: Path) -> None:
    assert told(folder, "+use.tims=4") == [
        "use.tims: nothing uses such a key with this graph\n"
        "  did you mean times? the keys of use that are used are times"
    ]
    assert told(folder, "+foo=1")[0].startswith("foo: nothing uses such a key")
    assert "did you mean data?" in told(folder, "+dat.count=1")[0]


def test_an_added_key_in_a_typed_part_is_an_error(folder: Path) -> None:
    assert "did you mean workers?" in told(folder, "+runner.wrokers=2")[0]
    assert "did you mean final?" in told(folder, "+graph.nodes.make.finl=true")[0]
    assert told(folder, "+graph.targets=[use]")[0].startswith("graph.targets: there is no such key")


def test_all_mistakes_are_told_at_once_in_the_users_names(folder: Path) -> None:
    found = told(
        folder,
        "data.count=0",
        "use.times=often",
        "+foo=1",
        "modifier=upper",
        "modifier.upper.strength=strong",
    )
    assert {text.split("\n")[0] for text in found} == {
        "data.count is 0",
        "use.times is 'often', which is not a whole number",
        "modifier.upper.strength is 'strong', which is not a number",
        "foo: nothing uses such a key with this graph",
    }


def test_an_override_of_an_unused_section_has_no_effect_and_says_so(folder: Path) -> None:
    assert loaded(folder, "graph=short").graph.sites.keys() == {"make"}
    assert told(folder, "graph=short", "use.times=3") == [
        "use.times: has no effect with this graph\n  leave out 'use.times=3'"
    ]


def test_a_missing_value_names_the_key_to_give(folder: Path) -> None:
    assert told(folder, "data=given") == ["data.count is missing\n  give data.count=VALUE"]


def test_a_wrong_choice_of_wiring_is_told_as_the_choice(folder: Path) -> None:
    chosen = FILES["graph/tiny.yaml"].replace(
        "words: make", 'words: "${graph.wiring.${use.times}}"'
    )
    write_files(folder, {"graph/chosen.yaml": chosen})
    assert told(folder, "graph=chosen", "use.times=al") == [
        "use.times is 'al'\n  did you mean all? choose one of all, none"
    ]


def test_an_unknown_kind_says_which_there_are(folder: Path) -> None:
    assert told(folder, "graph.nodes.make.kind=mkae")[0] == (
        "graph.nodes.make.kind: there is no stage of kind 'mkae'\n"
        "  did you mean make? choose one of make, use"
    )
    assert told(folder, "data.kind=wrods")[0].startswith("data.kind: there is no dataset")


@pytest.mark.parametrize(
    ("override", "start"),
    [
        ("mode=pln", "mode is 'pln'\n  did you mean plan?"),
        ("device=gpu", "device is 'gpu'"),
        ("runner.workers=0", "runner.workers is 0"),
        ("+runner.devices=[cpu,cpu]", "runner.workers is 1 and devices is ['cpu', 'cpu']"),
        ("+runner.devices=[]", "runner.devices is []"),
        ("runner.threads=-1", "runner.threads is -1"),
        ("runner.kind=cloud", "runner.kind is 'cloud'"),
        ("+store.lock=maybe", "store.lock='maybe'"),
        ("graph.nodes=3", "graph.nodes is 3"),
        ("gc=3", "gc: 3 (a whole number) is given where a mapping belongs"),
        ("use.times=${use.times}", "graph.nodes.use.params.times: Recursive"),
        ("use.times=${.x}", "use.times refers to ${use.x}"),
    ],
)
def test_wrong_values_of_the_typed_parts_are_told(folder: Path, override: str, start: str) -> None:
    assert told(folder, override)[0].startswith(start)


def test_modes_that_need_no_graph_do_not_look_at_it(folder: Path) -> None:
    config = loaded(folder, "mode=ls", "data=given", "graph.nodes.make.kind=nothing")
    assert config.graph.sites == {}
    assert told(folder, "mode=ls", "+foo=1")[0].startswith("foo: nothing uses such a key")


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("data.count=7", "modifier=[reverse,upper]", "modifier.upper.strength=2"),
        ("graph=short", "runner.threads=5"),
        ("data.language='yes: \"no\" # 1e-3'", "store.dir=elsewhere"),
    ],
)
def test_a_written_config_gives_the_same_config_again(
    folder: Path, tmp_path: Path, overrides: tuple[str, ...]
) -> None:
    first = loaded(folder, *overrides)
    run = tmp_path / "run"
    run.mkdir()
    write_config(first, run)
    cfg = composed(run, name="config")
    again = load_config(cfg, tiny_registry(), cwd=Path("/nowhere"))
    assert again.resolved == first.resolved
    assert list(again.sections.get("modifier", {})) == list(first.sections.get("modifier", {}))
    for name, site in first.graph.sites.items():
        other = again.graph.sites[name]
        assert other.stage.semantics(None) == site.stage.semantics(None)
        assert (other.inputs, other.final, other.publish) == (site.inputs, site.final, site.publish)
    assert (again.store, again.runner, again.numerics) == (
        first.store,
        first.runner,
        first.numerics,
    )


def test_a_written_config_still_takes_overrides(folder: Path, tmp_path: Path) -> None:
    write_config(loaded(folder), tmp_path)
    cfg = composed(tmp_path, "data.count=9", name="config")
    assert load_config(cfg, tiny_registry()).graph.sites["make"].stage.config.data.count == 9
    assert OmegaConf.select(cfg, "graph.nodes.make.params.data.count") == 9


def test_values_from_the_environment_are_written_as_references_to_it(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TINY_LANGUAGE", "fr")
    config = loaded(folder, "data.language=${oc.env:TINY_LANGUAGE}")
    write_config(config, tmp_path)
    monkeypatch.setenv("TINY_LANGUAGE", "de")
    assert "language: ${oc.env:TINY_LANGUAGE}" in (tmp_path / "config.yaml").read_text()
    assert loaded(tmp_path, name="config").graph.sites["make"].stage.config.data.language == "de"
