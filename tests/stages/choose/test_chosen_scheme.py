"""Targets of a choice: they name what was chosen, and nothing else."""

from __future__ import annotations

from itertools import cycle

from stages.choose.chosen_scheme import chosen_scheme, patterns
from stages.model.blueprint import Blueprint
from stages.schemes.candidates import units_of
from stages.schemes.quant_args import QArgs
from stages.schemes.resolve import resolve
from stages.schemes.scheme import SchemeConfig, SchemeGroup
from tests.stages.formats.fakes import blueprint


def wn(bits: int) -> SchemeConfig:
    return SchemeConfig(weights=QArgs(num_bits=bits, strategy="group", group_size=32))


AUTO = SchemeConfig(
    candidates=["w4", "w8", "dense"],
    options={"w4": wn(4), "w8": wn(8), "dense": SchemeConfig()},
)


def chosen(model: Blueprint, scheme: SchemeConfig = AUTO) -> tuple[dict[str, str], dict[str, int]]:
    """What was asked for, by module, and the bits that the settled scheme gives it."""
    units = units_of(scheme, model)
    names = [n for _, n in zip(units.units, cycle(["w8", "w4", "dense", "w4"]), strict=False)]
    asked = {
        linear.name: name
        for unit, name in zip(units.units, names, strict=True)
        for linear in unit.linears
    }
    found = resolve(chosen_scheme(scheme, units, names), model).checked()
    return asked, {n: r.scheme.weights.num_bits for n, r in found.items() if r.scheme.weights}


def test_every_module_gets_what_was_chosen_for_it_and_the_head_stays() -> None:
    for model in (blueprint(layers=12), blueprint(layers=3, experts=4)):
        asked, bits = chosen(model)
        wanted = {name: {"w4": 4, "w8": 8}[n] for name, n in asked.items() if n != "dense"}
        assert bits == wanted
        assert "lm_head" not in asked and "dense" in asked.values()


def test_formats_given_by_hand_stay_and_are_not_chosen_for() -> None:
    own = SchemeGroup(weights=QArgs(num_bits=6, strategy="channel"), targets=["re:.*o_proj"])
    scheme = SchemeConfig(candidates=AUTO.candidates, options=AUTO.options, groups={"mine": own})
    asked, bits = chosen(blueprint(), scheme)
    assert not any(name.endswith("o_proj") for name in asked)
    assert {n for n, b in bits.items() if b == 6} == {
        f"model.layers.{i}.self_attn.o_proj" for i in range(2)
    }


def test_inputs_are_quantized_where_the_chosen_candidate_says_so() -> None:
    inputs = QArgs(strategy="token", dynamic=True)
    act = SchemeConfig(weights=QArgs(strategy="channel"), input_activations=inputs)
    scheme = SchemeConfig(candidates=["w4", "act"], options={"w4": wn(4), "act": act})
    units = units_of(scheme, blueprint(layers=1))
    made = chosen_scheme(scheme, units, ["w4", "act", "act", "w4"])
    found = resolve(made, blueprint(layers=1)).checked()
    quantized = {name for name, r in found.items() if r.scheme.input_activations == inputs}
    leaves = {name.rpartition(".")[2] for name in quantized}
    assert leaves == {"o_proj", "gate_proj", "up_proj"}


def test_experts_and_layers_do_not_make_the_list_of_targets_longer() -> None:
    units = units_of(AUTO, blueprint(layers=12, experts=8))
    scheme = chosen_scheme(AUTO, units, ["w4"] * len(units.units))
    assert len(scheme.groups["chosen_w4"].targets) == 7  # q k v o gate up down


def test_layers_without_a_number_are_named_one_by_one() -> None:
    assert patterns([("encoder.first", "encoder.first.q_proj")]) == ["encoder.first.q_proj"]
