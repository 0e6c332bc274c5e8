"""Jobs with expert pruning: which experts stay, what is calibrated after it, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from pipeline.config.recipe_import import imported
from pipeline.errors import UserError
from pipeline.registry import Registry
from tests.families.unpack import tensors_of
from tests.jobs import Job, built
from tests.stages.model.experts.tiny import tiny_experts
from tests.stages.model.structure.never_chosen import loaded, logits, never_chosen, same
from tests.stages.tokens.fakes import byte_tokenizer
from tests.test_data_free import disk

HALF = ("dataset.sequence_length=32", "modifier.reap.sparsity=0.5")


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory, some_text: Path) -> Job:
    folder = tmp_path_factory.mktemp("reaped")
    tiny_experts("qwen3_moe", folder / "model")
    byte_tokenizer().save_pretrained(folder / "model")
    return Job(folder=folder, model=folder / "model", text=some_text)


def saliencies(job: Job) -> dict[str, list[float]]:
    """Layer -> mean of gate times norm of every expert's output, by transformers' own modules."""
    (tokens,) = (job.folder / "store").rglob("tokens.safetensors")
    ids = load_file(tokens)["input_ids"].long()
    model: Any = loaded(job.model)
    seen: dict[str, tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = {}
    for name, module in model.named_modules():
        if name.endswith(".experts"):
            layer = name.removesuffix(".mlp.experts")
            module.register_forward_pre_hook(lambda m, a, layer=layer: seen.update({layer: a}))
    with torch.no_grad():
        model(input_ids=ids, use_cache=False)
        found = {}
        for layer, (hidden, indices, gates) in seen.items():
            experts = model.get_submodule(f"{layer}.mlp.experts")
            x, values = hidden.flatten(0, -2).double(), []
            for expert in range(4):
                gate, up = (x @ experts.gate_up_proj[expert].double().T).chunk(2, dim=-1)
                output = (experts.act_fn(gate) * up) @ experts.down_proj[expert].double().T
                rows, place = torch.where(indices == expert)
                norms = torch.linalg.vector_norm(output[rows], dim=-1)
                values.append(float((gates[rows, place] * norms).mean()))
            found[layer] = values
    return found


def test_the_experts_that_add_least_go_and_the_others_compute_what_is_left(job: Job) -> None:
    result = job.run("pruned", *HALF, "modifier=reap", "scheme=none")
    assert result["verify"]["ok"] is True
    rows = {row["name"]: row for row in result["experts"]}
    wanted = saliencies(job)
    assert rows.keys() == wanted.keys()
    for name, values in wanted.items():
        assert rows[name]["values"] == pytest.approx(values, rel=1e-4)
        most = sorted(range(4), key=lambda expert, values=values: -values[expert])[:2]
        assert rows[name]["kept"] == sorted(most)
        assert sum(rows[name]["tokens"]) == 2 * 6 * 32
    checkpoint = job.folder / "pruned" / "checkpoint"
    config = json.loads((checkpoint / "config.json").read_text())
    assert {v for n, v in config.items() if n in ("num_experts", "num_local_experts")} == {2}
    sizes = result["size"]
    assert sizes["compressed_bytes"] < 0.8 * sizes["original_bytes"]
    original = loaded(job.model)
    gone = {n: [e for e in range(4) if e not in row["kept"]] for n, row in rows.items()}
    with never_chosen(original, gone, 4):
        same(logits(loaded(checkpoint)), logits(original))


def test_what_is_quantized_afterwards_is_calibrated_on_the_model_that_is_left(job: Job) -> None:
    """The same job on the pruned checkpoint gives the same weights, to the bit."""
    words = ("modifier=[reap,gptq]", "scheme=w4a16_g64", "scheme.weights.group_size=32")
    both = job.run("both", *HALF, *words)
    assert {row["solver"] for row in both["layers"]} == {"gptq"}
    pruned = job.folder / "pruned" / "checkpoint"
    if not pruned.exists():
        job.run("pruned", *HALF, "modifier=reap", "scheme=none")
    after = job.run("after", *HALF[:1], f"model.path={pruned}", "modifier=gptq", *words[1:])
    assert after["verify"]["ok"] is both["verify"]["ok"] is True
    one, other = (tensors_of(job.folder / name / "checkpoint") for name in ("both", "after"))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    recipe = (job.folder / "both" / "checkpoint" / "recipe.yaml").read_text()
    assert "kind: reap" in recipe and "sparsity: 0.5" in recipe


def test_saliency_is_measured_once_for_every_share(job: Job) -> None:
    job.run("pruned", *HALF, "modifier=reap", "scheme=none")
    again = built(job.run("quarter", HALF[0], "modifier=reap", "scheme=none"))
    assert "reap" in again and not any(name.startswith("saliency") for name in again)


def test_the_model_that_was_pruned_is_compared_with_the_whole_one(job: Job) -> None:
    eval_words = ("eval=standard", "eval.dataset.num_samples=2", "eval.max_new_tokens=2")
    result = job.run("judged", *HALF, "modifier=reap", "scheme=none", *eval_words)
    assert result["eval"]["kl"] > 1e-3
    assert any(row["original"] != row["compressed"] for row in result["generations"])


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("modifier=[gptq,reap]",), "'reap' comes after 'gptq'"),
        (("modifier=[reap,keep]",), "'keep' takes over weights"),
        (("modifier=reap", "modifier.reap.sparsity=1.0"), "sparsity is 1.0"),
        (("modifier=reap", "modifier.reap.sparsity=0.1"), "prunes none of 4 experts"),
        (("modifier=reap", "modifier.reap.sparsity=0.75"), "a token may reach 1"),
        (("modifier=rtn", "+modifier.reap={kind: reap}"), "comes after 'rtn'"),
        (("modifier=[]", "+modifier.reap.kind=reap"), "nothing in its graph prunes experts"),
    ],
)
def test_what_cannot_be_pruned_is_told_before_anything_runs(
    job: Job, words: tuple[str, ...], told: str
) -> None:
    with pytest.raises(UserError, match=told):
        job.plan(*words)


def test_recipes_prune_experts_as_our_own_words_do(job: Job) -> None:
    text = "REAPPruningModifier: {sparsity: 0.5}"
    (job.folder / "theirs.yaml").write_text("{s_stage: {m_modifiers: {" + text + "}}}")
    job.run("pruned", *HALF, "modifier=reap", "scheme=none")
    own = job.folder / "pruned" / "checkpoint" / "recipe.yaml"
    for name, recipe in (("theirs", job.folder / "theirs.yaml"), ("own", own)):
        words = imported([f"recipe={recipe}"], Registry.load).overrides
        found = job.run(name, HALF[0], *words)
        assert not [n for n in built(found) if n not in ("save", "verify")]
        assert found["experts"]


def test_a_graph_that_runs_nothing_cannot_prune_experts(job: Job) -> None:
    with pytest.raises(UserError, match="nothing in its graph prunes experts"):
        disk(job.folder, job.model).plan("modifier=[reap,rtn]")


def test_a_dense_model_is_refused_by_the_plan(
    tiny_llama: Path, some_text: Path, tmp_path: Path
) -> None:
    dense = Job(folder=tmp_path, model=tiny_llama, text=some_text)
    with pytest.raises(UserError, match="has no routed experts"):
        dense.plan("modifier=[reap,gptq]")
