"""Each page on adding something: its files, as an installed package, do what the page says."""

from __future__ import annotations

import json
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from pipeline.config.recipe_import import imported
from pipeline.errors import UserError
from pipeline.registry import Registry
from pipeline.sweeps.page import write_sweep
from tests.jobs import Job, built
from tests.stages.docs.pages import DOCS, FILE, Page, page
from tests.stages.model.tiny import COMMON

PAGES = sorted(path.stem for path in (DOCS / "extend").glob("*.md"))
SHOWN = [name for name in PAGES if name not in ("README", "team")]

Use = Callable[..., Page]
RANGES = {"stages.compress.observers.qparams": "stages.compress.observers.ranges"}


@pytest.fixture
def job(tmp_path: Path, tiny_llama: Path, some_text: Path) -> Job:
    return Job(folder=tmp_path, model=tiny_llama, text=some_text)


@pytest.fixture
def use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Use]:
    """Installs what a page shows, until the test is over."""
    used: list[Page] = []

    def install(name: str, former: Mapping[str, str] = MappingProxyType({})) -> Page:
        shown = page(name).former(former)
        site, conf = shown.install(tmp_path)
        monkeypatch.syspath_prepend(str(site))
        monkeypatch.setenv("PRESSWORK_CONF", str(conf))
        used.append(shown)
        return shown

    yield install
    for shown in used:
        for module in shown.modules:
            sys.modules.pop(module, None)


@pytest.mark.parametrize("name", SHOWN)
def test_an_example_is_one_short_file(name: str) -> None:
    files = page(name).files
    code = [text for path, text in files.items() if path.endswith(".py")]
    assert len(code) == 1 and len(code[0].splitlines()) < 60
    assert "pyproject.toml" in files
    for path, text in files.items():
        if path.endswith(".yaml"):
            assert any(line.startswith("#   python -m pipeline") for line in text.splitlines())


def test_every_page_is_in_the_list() -> None:
    text = (DOCS / "extend" / "README.md").read_text()
    assert [name for name in PAGES if name != "README" and f"({name}.md)" not in text] == []


def test_the_page_on_team_repos_shows_the_files_of_the_example() -> None:
    text = (DOCS / "extend" / "team.md").read_text()
    team = Path(__file__).parents[2] / "team"
    shown = {match["name"]: match["text"] for match in FILE.finditer(text)}
    assert len(shown) == 3
    assert shown == {name: (team / name).read_text() for name in shown}


def weights(job: Job, name: str) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for path in sorted((job.folder / name / "checkpoint").glob("*.safetensors")):
        found |= load_file(path)
    return found


def test_stage(job: Job, use: Use) -> None:
    result = job.run("run", "modifier=rtn", *use("stage").words)
    digests = result["fingerprint"]
    expected = job.checkpoint("run")
    assert digests and digests == {name: expected[name] for name in digests}
    assert built(job.run("again", "modifier=rtn", *page("stage").words)) == set()


def test_solver(job: Job, use: Use) -> None:
    words = use("solver").words
    result = job.run("seven", *words)
    assert {row["solver"] for row in result["layers"]} == {"dither"}
    assert result["verify"]["ok"] is True
    other = job.run("eight", *words[:-1], "modifier.dither.seed=8")
    assert {n for n in built(other) if n.startswith("compress[")}
    assert job.checkpoint("seven") != job.checkpoint("eight")


def test_a_solver_of_another_version_is_another_key(
    job: Job, use: Use, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = use("solver").words
    job.run("one", *words)
    monkeypatch.setattr(Registry.load().get("modifier", "dither"), "version", 2)
    assert "compress[0]" in built(job.run("two", *words))


def test_transform(job: Job, use: Use) -> None:
    words = [*use("transform").words, "scheme=w8a8"]
    result = job.run("run", *words)
    assert result["verify"]["ok"] is True
    norm = "model.layers.0.input_layernorm.weight"
    assert not torch.equal(weights(job, "run")[norm], torch.ones(128, dtype=torch.bfloat16))
    assert max(row["relative_error"] for row in result["layers"]) < 0.01


@pytest.mark.parametrize("former", [{}, RANGES], ids=["now", "former"])
def test_observer(job: Job, use: Use, former: dict[str, str]) -> None:
    """Also one written when the modules that it imports lay elsewhere: told so, and as good."""
    with warnings.catch_warnings(record=True, category=FutureWarning) as caught:
        job.run("run", *use("observer", former).words)
    assert any("has moved to" in str(warning.message) for warning in caught) is bool(former)
    name = "model.layers.0.mlp.up_proj"
    original = load_file(job.model / "model-layer-000.safetensors")[f"{name}.weight"]
    groups = original.float().numpy().reshape(256, 4, 32)
    low, high = np.quantile(groups, [0.01, 0.99], axis=-1)
    expected = np.maximum(-low, high) / 7.5  # 4 bits, symmetric: codes -8 to 7
    found = weights(job, "run")[f"{name}.weight_scale"].float().numpy()
    np.testing.assert_allclose(found, expected, rtol=0.02)  # scales are bfloat16


def test_statistic(job: Job, use: Use) -> None:
    result = job.run("run", *use("statistic").words)
    assert result["verify"]["ok"] is True
    calibrated = next(n for n in result["nodes"] if n["name"] == "calibrate[0]")
    assert calibrated["status"] == "built" and "power" in calibrated["keys"]


@pytest.mark.slow
def test_a_statistic_that_a_transform_makes_untrue_is_an_error(job: Job, use: Use) -> None:
    use("statistic")
    with pytest.raises(UserError, match="gathered before smoothquant changes the inputs"):
        job.run("run", "modifier=[smoothquant,weighted]", "scheme=w8a8")


def test_dataset(job: Job, use: Use) -> None:
    shown = use("dataset")
    lines = job.text.read_text().splitlines()
    table = job.folder / "tickets.csv"
    table.write_text("id,body\n" + "".join(f'{i},"{t}"\n' for i, t in enumerate(lines)))
    words = [word.replace("FILE.csv", str(table)) for word in shown.words]
    given = ["dataset.num_samples=4", "dataset.sequence_length=32"]
    result = job.run("run", *words, *given)
    assert result["status"] == "ok" and "tokens" in built(result)
    with pytest.raises(UserError, match=r"no column 'text'[\s\S]*one of id, body"):
        job.run("wrong", *words, *given, "dataset.column=text")


@pytest.mark.slow
def test_model(job: Job, use: Use) -> None:
    for release in ("1.0", "1.1"):
        shutil.copytree(job.model, job.folder / "shelf" / "small" / release)
    given = {"DIR": str(job.folder / "shelf"), "NAME": "small"}
    words = use("model").words
    for name, value in given.items():
        words = [word.replace(f"={name}", f"={value}") for word in words]
    assert job.run("run", *words, "modifier=rtn")["status"] == "ok"
    with pytest.raises(UserError, match=r"model.release: .*small has no '2.0'"):
        job.run("wrong", *words, "modifier=rtn", "model.release=2.0")


def test_eval(job: Job, use: Use) -> None:
    words = [word.replace("FILE", str(job.text)) for word in use("eval").words]
    given = ["modifier=rtn", "eval.dataset.num_samples=3", "eval.dataset.sequence_length=32"]
    result = job.run("run", *words, *given, "eval.prompts=[]", "eval.batch_size=2")
    cosine = result["eval"]["cosine"]
    assert 0.5 < cosine["low"] < cosine["mean"] < 1.0
    assert result["eval"]["perplexity"]["tokens"] == 93


def test_report(job: Job, use: Use, capsys: pytest.CaptureFixture[str]) -> None:
    result = job.run("run", *use("report").words)
    printed = capsys.readouterr().out
    assert printed.index("worst layers") < printed.index("kind of module")
    page = (job.folder / "run" / "report.html").read_text(encoding="utf-8")
    heading = page.index("<h2>Worst of each kind</h2>")
    assert page.index("<h2>Worst layers</h2>") < heading < page.index("<h2>Time and memory</h2>")
    assert "<tr><th>q_proj</th><td>0." in page
    (job.folder / "run" / "config.yaml").write_text("modifier: rtn")
    sweep = write_sweep(job.folder)
    largest = max(row["relative_error"] for row in result["layers"])
    assert [row["worst_error"] for row in sweep["jobs"]] == [largest]
    assert ">worst error</button>" in (job.folder / "sweep.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_family(job: Job, use: Use, tmp_path: Path) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    from tests.benchmarks.random_llama import write_tokenizer

    folder = tmp_path / "granite"
    config = AutoConfig.for_model("granite", **COMMON | {"vocab_size": 300, "dtype": "bfloat16"})
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    write_tokenizer(folder)
    words = [word.replace("DIR", str(folder)) for word in use("family").words]
    job.run("run", *words, "scheme=w8a8")
    norm = weights(job, "run")["model.layers.0.input_layernorm.weight"]
    assert not torch.equal(norm, torch.ones_like(norm))


@pytest.mark.slow
def test_recipe(job: Job, use: Use, monkeypatch: pytest.MonkeyPatch) -> None:
    words = use("recipe").words
    monkeypatch.chdir(job.folder)
    found = imported(words, Registry.load)
    assert "not used: true_sequential" in found.notes[0]
    result = job.run("run", *found.overrides)
    saved: dict[str, Any] = json.loads(
        (job.folder / "run" / "checkpoint" / "config.json").read_text()
    )
    [group] = saved["quantization_config"]["config_groups"].values()
    assert result["verify"]["ok"] is True
    assert (group["weights"]["num_bits"], group["weights"]["group_size"]) == (4, 64)
    assert group["weights"]["symmetric"] is False
