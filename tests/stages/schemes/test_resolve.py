"""A scheme meets a model: who gets which format, and every mistake found at once."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pipeline.errors import UserError
from stages.schemes.idle import idle_parts
from stages.schemes.quant_args import QArgs
from stages.schemes.resolve import resolve
from stages.schemes.scheme import SchemeConfig, SchemeGroup
from tests.stages.formats.fakes import blueprint

W4 = QArgs(num_bits=4, strategy="group", group_size=32)
W8 = QArgs(strategy="channel")


def idle(scheme: SchemeConfig) -> tuple[UserError, ...]:
    return idle_parts(scheme, blueprint(), resolve(scheme, blueprint()).modules)


def test_a_class_target_covers_every_linear_but_the_head() -> None:
    model = blueprint()
    found = resolve(SchemeConfig(weights=W4), model).checked()
    assert set(found) == {x.name for layer in model.layers for x in layer.linears}


def test_the_first_match_counts_and_ignore_wins() -> None:
    down = SchemeGroup(weights=W8, targets=["re:.*down_proj$"])
    linear = SchemeGroup(weights=W4, targets=["Linear"])
    scheme = SchemeConfig(
        groups={"down": down, "rest": linear}, ignore=["lm_head", "re:.*layers.1.*"]
    )
    found = resolve(scheme, blueprint()).checked()
    assert found["model.layers.0.mlp.down_proj"].group == "down"
    assert found["model.layers.0.mlp.up_proj"].group == "rest"
    assert not any(".1." in name for name in found)


def test_an_expression_matches_from_the_start_of_the_name() -> None:
    result = resolve(SchemeConfig(weights=W4, targets=["re:down_proj"]), blueprint())
    assert not result.modules
    assert len(result.problems) == 1


def test_a_misspelt_class_is_guessed() -> None:
    (problem,) = resolve(SchemeConfig(weights=W4, targets=["Linaer"]), blueprint()).problems
    assert "did you mean Linear" in str(problem)


def test_a_target_that_matches_nothing_names_what_is_there() -> None:
    scheme = SchemeConfig(weights=W4, targets=["model.layers.0.mlp.down_prj"])
    with pytest.raises(UserError, match="matches no module") as error:
        resolve(scheme, blueprint()).checked()
    assert "did you mean model.layers.0.mlp.down_proj" in str(error.value)
    assert "Linear (14)" in str(error.value)


def test_group_sizes_that_do_not_divide_are_one_error_with_what_would_work() -> None:
    args = QArgs(num_bits=4, strategy="group", group_size=128)
    problems = resolve(SchemeConfig(weights=args), blueprint(width=96, inner=192)).problems
    assert len(problems) == 1
    text = str(problems[0])
    assert "model.layers.*.self_attn.q_proj (2 layers, in_features 96)" in text
    assert "model.layers.*.mlp.down_proj (2 layers, in_features 192)" in text
    assert "group sizes that divide all: 16, 32, 48, 96;" in text


def test_a_fixed_group_size_is_answered_with_ignore() -> None:
    args = QArgs(num_bits=4, type="float", strategy="group", group_size=32, scale_dtype="uint8")
    (problem,) = resolve(SchemeConfig(weights=args), blueprint(width=80)).problems
    assert "no other group size" in str(problem)


def test_all_problems_are_found_at_once() -> None:
    args = QArgs(num_bits=4, strategy="group", group_size=48)
    inputs = QArgs(num_bits=8, strategy="token", dynamic=True)
    targets = ["Linear", "Conv2d", "Embedding"]
    scheme = SchemeConfig(weights=args, input_activations=inputs, targets=targets, ignore=[])
    problems = "\n".join(str(problem) for problem in resolve(scheme, blueprint()).problems)
    for said in ("'Conv2d'", "token ids", "does not divide", "lm_head (1 layer"):
        assert said in problems


def test_the_head_and_the_embedding_are_targets_as_any_other() -> None:
    scheme = SchemeConfig(weights=W4, targets=["Linear", "Embedding"], ignore=[])
    modules = resolve(scheme, blueprint()).modules
    assert {"lm_head", "model.embed_tokens"} <= modules.keys()


def test_head_and_embedding_stay_where_the_targets_leave_them() -> None:
    modules = resolve(SchemeConfig(weights=W4), blueprint()).modules
    assert not {"lm_head", "model.embed_tokens"} & modules.keys()


@pytest.mark.parametrize("entry", ["model.head", "model.layers", "re:head", "Conv2d"])
def test_an_ignore_that_matches_nothing_is_a_problem(entry: str) -> None:
    scheme = SchemeConfig(weights=W4, ignore=["lm_head", entry])
    (problem,) = idle(scheme)
    assert f"scheme.ignore has {entry!r}, which matches no module" in problem.what


@pytest.mark.parametrize("entry", ["model.norm", "re:.*norm$", "re:.*layers.0.*", "Embedding"])
def test_an_ignore_may_name_what_is_never_compressed(entry: str) -> None:
    linear = SchemeGroup(weights=W4, targets=["model.layers.1.mlp.down_proj"])
    scheme = SchemeConfig(groups={"one": linear}, ignore=["lm_head", entry])
    assert not idle(scheme)


def test_a_group_that_is_for_no_module_in_the_end_is_a_problem() -> None:
    every = SchemeGroup(weights=W4, targets=["Linear"])
    down = SchemeGroup(weights=W8, targets=["re:.*down_proj$"])
    late = idle(SchemeConfig(groups={"all": every, "down": down}))
    assert ["scheme.groups.down is for no module" in problem.what for problem in late] == [True]
    assert "model.layers.*.mlp.down_proj (2 layers" in late[0].what
    (nothing,) = idle(SchemeConfig(weights=W4, ignore=["Linear"]))
    assert nothing.what.startswith("scheme is for no module") and "q_proj (2 layers" in nothing.what


def test_the_head_is_the_lm_head_whatever_its_name_is() -> None:
    model = blueprint()
    head = replace(model.outside_linears[0], name="embed_out", prefix="embed_out")
    outside = {n.replace("lm_head", "embed_out"): t for n, t in model.outside.items()}
    shapes = {n.replace("lm_head", "embed_out"): t for n, t in model.outside_shapes.items()}
    other = replace(
        model, head="embed_out", outside=outside, outside_shapes=shapes, outside_linears=(head,)
    )
    assert "embed_out" not in resolve(SchemeConfig(weights=W8), other).modules
    chosen = SchemeConfig(weights=W8, targets=["lm_head"], ignore=[])
    assert set(resolve(chosen, other).modules) == {"embed_out"}


def test_fused_partners_with_two_formats_are_a_warning() -> None:
    up = SchemeGroup(weights=W8, targets=["re:.*up_proj$"])
    (warning,) = resolve(SchemeConfig(weights=W4, groups={"up": up}), blueprint()).warnings
    assert "gate_proj" in warning


def test_routers_stay_out_of_class_and_pattern_targets() -> None:
    from stages.model.blueprint import LinearSpec

    model = blueprint(layers=1, experts=2)
    name = "model.layers.0.mlp.shared_expert_gate"
    gate = LinearSpec(name=name, prefix=name, in_features=64, out_features=1)
    layer = replace(model.layers[0], linears=(*model.layers[0].linears, gate))
    model = replace(model, layers=(layer,))
    assert name not in resolve(SchemeConfig(weights=W4, targets=["Linear"]), model).modules
    assert name not in resolve(SchemeConfig(weights=W4, targets=["re:.*"]), model).modules
    assert name in resolve(SchemeConfig(weights=W4, targets=[name]), model).modules


def test_a_scheme_without_weights_quantizes_nothing() -> None:
    result = resolve(SchemeConfig(), blueprint())
    assert not result.modules and not result.problems


def test_lm_head_means_the_head_whatever_a_model_calls_it() -> None:
    model = blueprint()
    ends = tuple(
        replace(end, name="embed_out", prefix="embed_out") if end.name == "lm_head" else end
        for end in model.outside_linears
    )
    renamed = replace(model, head="embed_out", outside_linears=ends)
    assert "embed_out" not in resolve(SchemeConfig(weights=W4), renamed).checked()
    asked = SchemeConfig(weights=W4, targets=["Linear", "lm_head"], ignore=[])
    assert "embed_out" in resolve(asked, renamed).checked()
