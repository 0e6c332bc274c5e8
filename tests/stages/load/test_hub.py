from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import huggingface_hub.constants as constants
import pytest
import torch
from safetensors.torch import save

from pipeline.errors import UserError
from stages.load.hub import HubModel
from stages.load.hub_blobs import check_small
from stages.load.stage import Load, LoadConfig
from stages.quantized.open import open_source
from tests.stages.load.conftest import CONFIG, TOKENIZER, View
from tests.stages.load.hub_server import COMMIT, NAME, Hub, serving

FILES = {
    "config.json": json.dumps(CONFIG).encode(),
    "tokenizer.json": TOKENIZER.encode(),
    "modeling_own.py": b"raise SystemExit\n",
    "README.md": b"about\n",
    "model.safetensors": save({"model.norm.weight": torch.ones(4)}),
    "consolidated.safetensors": save({"norm": torch.ones(4)}),
    "original/model.safetensors": b"x",
    "pytorch_model.bin": b"x",
}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serving(Hub(files=dict(FILES))) as server:
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(
            constants,
            "HUGGINGFACE_CO_URL_TEMPLATE",
            server.url + "/{repo_id}/resolve/{revision}/{filename}",
        )
        yield server


@pytest.fixture
def away(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub cannot be reached: nothing listens where it is looked for."""
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")


def stage(**more: Any) -> Load:
    return Load(LoadConfig(model=HubModel(**({"id": NAME} | more))))


def test_safetensors_and_small_files_are_fetched_and_nothing_else(hub: Hub, load) -> None:
    made = stage()
    survey = made.survey(View())
    assert not survey.problems and survey.facts.config == CONFIG
    result, _ = load(survey.settled)
    assert sorted(p.name for p in (result.path / "model").iterdir()) == [
        "config.json", "tokenizer.json",
    ]  # fmt: skip
    source = open_source(result)
    assert torch.equal(source.read(["model.norm.weight"])["model.norm.weight"], torch.ones(4))
    fetched = {path.split("/", 5)[5] for path in hub.asked if "/resolve/" in path}
    assert fetched == {"config.json", "tokenizer.json", "model.safetensors"}
    assert result.meta["identity"] == f"hub:{NAME}@{COMMIT}"


def test_custom_code_is_fetched_only_when_trusted(hub: Hub, load) -> None:
    made = stage(trust_remote_code=True)
    result, _ = load(made.survey(View()).settled)
    assert (result.path / "model" / "modeling_own.py").exists()


def test_code_that_the_config_names_is_fetched(hub: Hub, load) -> None:
    own = {**CONFIG, "auto_map": {"AutoModelForCausalLM": "modeling_own.Own"}}
    hub.files["config.json"] = json.dumps(own).encode()
    result, _ = load(stage().survey(View()).settled)
    assert (result.path / "model" / "modeling_own.py").exists()


def test_a_branch_and_its_commit_are_the_same_source(hub: Hub) -> None:
    by_branch, by_commit = (
        made.survey(View()).settled for made in (stage(), stage(revision=COMMIT))
    )
    assert by_branch.semantics(None) == by_commit.semantics(None)


def test_a_commit_needs_no_network_to_be_identified(hub: Hub) -> None:
    made = stage(revision=COMMIT, config=CONFIG)
    assert made.survey(View()).facts.identity == f"hub:{NAME}@{COMMIT}"
    assert not hub.asked


def test_a_plan_asks_nobody(hub: Hub) -> None:
    survey = stage(config=CONFIG).survey(View(mode="plan"))
    assert not survey.problems and survey.facts.config == CONFIG
    assert survey.facts.identity is None and not hub.asked


def test_a_plan_without_numbers_says_what_to_do(hub: Hub) -> None:
    (problem,) = stage().survey(View(mode="plan")).problems
    assert "model.config" in problem.remedy


@pytest.mark.usefixtures("away")
def test_a_hub_out_of_reach_is_one_line_within_seconds() -> None:
    started = time.monotonic()
    with pytest.raises(UserError) as error:
        stage(config=CONFIG).survey(View())
    assert time.monotonic() - started < 10
    text = str(error.value)
    assert text.startswith("the Hugging Face hub cannot be reached (")
    assert "use model=local model.path=" in text and "\n" not in text


@pytest.mark.usefixtures("away")
def test_a_hub_out_of_reach_is_told_while_loading_too(load) -> None:
    with pytest.raises(UserError, match="cannot be reached"):
        load(stage(revision=COMMIT))


def test_a_cached_model_is_used_when_the_hub_is_out_of_reach(
    hub: Hub, load, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(stage())
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    made = stage()
    survey = made.survey(View())
    assert not survey.problems and "cached commit" in survey.warnings[0]
    result, _ = load(survey.settled)
    assert open_source(result).specs()


def test_offline_a_cached_model_is_used_without_a_question(
    hub: Hub, load, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(stage())
    hub.asked.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    made = stage()
    survey = made.survey(View())
    assert survey.warnings == ()
    load(survey.settled)
    assert not hub.asked


def test_a_removed_cache_is_filled_again_for_a_stored_result(
    hub: Hub, load, tmp_path: Path
) -> None:
    result, _ = load(stage().survey(View()).settled)
    shutil.rmtree(tmp_path / "hub")
    with pytest.raises(UserError, match="is gone"):
        open_source(result)
    assert not stage().survey(View(stored=result)).problems
    assert open_source(result).read(["model.norm.weight"])


@pytest.mark.parametrize(
    ("refusal", "why"),
    [
        ((403, "GatedRepo"), "is gated.*"),
        ((404, "RepoNotFound"), "no model someone/tiny, or it is private"),
        ((404, "RevisionNotFound"), "no revision 'main'"),
        ((500, ""), "the hub refused someone/tiny"),
    ],
)
def test_every_refusal_is_one_clear_line(hub: Hub, refusal: tuple[int, str], why: str) -> None:
    hub.refuse = refusal
    with pytest.raises(UserError, match=why) as error:
        stage().survey(View())
    assert "\n" not in error.value.what


def test_a_token_is_in_no_message(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = "hf_" + "abcdefghijklmnop"
    monkeypatch.setenv("HF_TOKEN", secret)
    hub.refuse = (403, "GatedRepo")
    with pytest.raises(UserError) as error:
        stage().survey(View())
    assert secret not in str(error.value)


def test_a_repository_of_pickles_is_refused(hub: Hub, load) -> None:
    for name in [name for name in hub.files if name.endswith(".safetensors")]:
        del hub.files[name]
    with pytest.raises(UserError, match=r"has no safetensors on the hub, only .*\.bin"):
        load(stage())


def test_an_index_of_the_hub_that_leaves_its_folder_is_refused(hub: Hub, load) -> None:
    del hub.files["model.safetensors"]
    index = {"weight_map": {"x": "../../../x.safetensors"}}
    hub.files["model.safetensors.index.json"] = json.dumps(index).encode()
    with pytest.raises(UserError, match="no path inside the folder"):
        load(stage())


def test_numbers_that_differ_from_the_models_own_are_warned_about(hub: Hub, load) -> None:
    _, warnings = load(stage(config=CONFIG | {"hidden_size": 8}))
    assert warnings == ["model.config.hidden_size is 8, the model's own config says 4"]


@pytest.mark.parametrize("id", ["", "a/b/c", "../x", "a b"])
def test_what_is_no_repository_is_refused(id: str) -> None:
    with pytest.raises(UserError, match=r"model\.id"):
        HubModel(id=id)


QUANTIZED = {"quant_method": "fp8", "activation_scheme": "dynamic"}


def test_how_a_quantized_model_is_read_is_part_of_its_key(hub: Hub, load) -> None:
    hub.files["config.json"] = json.dumps(CONFIG | {"quantization_config": QUANTIZED}).encode()
    made = stage()
    survey = made.survey(View())
    assert not survey.problems
    key = survey.settled.semantics(None)
    assert isinstance(key, dict) and "fp8" in str(key["reading"])
    result, _ = load(survey.settled)
    assert result.meta["quantized"] == "fp8"


@pytest.mark.parametrize("side", [True, False])
def test_a_quantization_that_is_found_after_the_download_is_refused(
    hub: Hub, load, side: bool
) -> None:
    if side:
        said = {"quantization": {"quant_algo": "FP8", "exclude_modules": []}}
        hub.files["hf_quant_config.json"] = json.dumps(said).encode()
        made = stage(revision=COMMIT)
    else:
        hub.files["config.json"] = json.dumps(CONFIG | {"quantization_config": QUANTIZED}).encode()
        made = stage(revision=COMMIT, config=CONFIG)
    settled = made.survey(View()).settled
    with pytest.raises(UserError, match=r"stored quantized.*model.config does not"):
        load(settled)


def test_a_cached_file_that_is_not_what_the_hub_says_is_found_on_demand(
    hub: Hub, load, tmp_path: Path
) -> None:
    load(surveyed_hub())
    blob = next((tmp_path / "hub").rglob("snapshots/*/model.safetensors")).resolve()
    blob.chmod(0o644)
    blob.write_bytes(save({"model.norm.weight": torch.zeros(4)}))
    load(surveyed_hub())
    with pytest.raises(UserError, match="has other content than the hub says"):
        load(surveyed_hub(rehash=True))


def test_a_small_file_that_was_edited_in_the_cache_is_not_taken_for_the_commits(
    hub: Hub, load, tmp_path: Path
) -> None:
    load(surveyed_hub())
    (snapshot,) = (tmp_path / "hub").rglob("snapshots/*")
    config = snapshot / "config.json"
    sound = config.read_text()
    config.write_text(sound.replace("4", "8"))
    with pytest.raises(
        UserError, match=r"config\.json in the hub's cache is not as the hub has it"
    ):
        load(surveyed_hub())
    config.write_text(sound)
    load(surveyed_hub())
    for name in (  # of `{}`: git's own digest, its sha1, no digest
        *("9e26dfeeb6e641a33dae4961196235bdb965b21b", "bf21a9e8fbc5a3846fb05b4fa0859e0917b2202f"),
        "etag",
    ):
        blob = snapshot.parent.parent / "blobs" / name
        blob.write_text("{}")
        (snapshot / "more.json").symlink_to(blob)
        check_small([snapshot / "more.json"])
        blob.write_text("[]")
        with nullcontext() if name == "etag" else pytest.raises(UserError):
            check_small([snapshot / "more.json"])
        (snapshot / "more.json").unlink()


def surveyed_hub(**more: Any) -> Load:
    survey = stage(**more).survey(View())
    assert not survey.problems
    return survey.settled
