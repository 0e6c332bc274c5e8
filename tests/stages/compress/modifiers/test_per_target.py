"""Options of a solver for some modules: each is solved as by a solver that has them for all."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pipeline.errors import UserError
from stages.compress.modifiers.base import Solver
from stages.compress.modifiers.gptq import Gptq
from stages.compress.modifiers.observer import PerTarget
from stages.compress.modifiers.rtn import Rtn
from stages.compress.modifiers.rtn_route import only_rounds
from stages.compress.shared_scales import grids_of
from stages.compress.solve import solve_layer
from tests.stages.compress.modifiers.test_awq import state
from tests.stages.model.tiny import Tiny, tiny

SOME = [
    PerTarget(targets=["re:.*k_proj", "re:.*down_proj"], observer="mse", actorder="none"),
    PerTarget(targets=["re:.*_proj"], observer="minmax"),
]


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return tiny("llama", tmp_path_factory.mktemp("llama"), num_hidden_layers=1)


def weights(model: Tiny, folder: Path, solver: Solver) -> dict[str, torch.Tensor]:
    folder.mkdir()
    layer = state(model, folder)
    found = solve_layer(layer, solver, grids_of(layer), {}, device="cpu")
    return {s.module: s.quantized.weight for s in found if s.quantized is not None}


def test_every_module_is_solved_by_its_own_options(llama: Tiny, tmp_path: Path) -> None:
    """q, k and v see one input: what has other options is not stacked with them."""
    plain = Gptq(observer="gram")
    mixed = weights(llama, tmp_path / "mixed", Gptq(observer="gram", per_target=SOME[:1]))
    whole = weights(llama, tmp_path / "plain", plain)
    other = weights(llama, tmp_path / "other", Gptq(observer="mse", actorder="none"))
    assert len(mixed) == 7
    for module, weight in mixed.items():
        special = module.endswith(("k_proj", "down_proj"))
        assert torch.equal(weight, (other if special else whole)[module]), module
        assert not torch.equal(other[module], whole[module])


def test_the_first_entry_that_names_a_module_counts() -> None:
    solver = Gptq(per_target=SOME)
    assert solver.of("model.layers.0.mlp.down_proj") == Gptq(observer="mse", actorder="none")
    assert solver.of("model.layers.0.mlp.up_proj") == Gptq(observer="minmax")
    assert solver.of("model.layers.0.mlp.gate") == Gptq()
    plain = Gptq()
    assert plain.of("anything") is plain


def test_statistics_and_keys_know_of_it() -> None:
    some = Rtn(per_target=[PerTarget(targets=["re:.*x"], observer="imatrix")])
    assert some.statistics() == {"gram"} and Rtn().statistics() == set()
    assert Rtn().semantics() == Rtn(per_target=None).semantics() != some.semantics()
    assert "per_target" not in str(Rtn().semantics())
    assert only_rounds([Rtn()], "cpu") and not only_rounds([some], "cpu")


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: PerTarget(targets=[]), "targets is empty"),
        (lambda: PerTarget(targets=["a"], observer="magic"), "magic"),
        (lambda: PerTarget(targets=["a"], actorder="group"), "actorder"),
        (
            lambda: Rtn(per_target=[PerTarget(targets=["a"], actorder="none")]),
            "rounding has no order",
        ),
        (
            lambda: Gptq(
                negative_scales=True, per_target=[PerTarget(targets=["a"], observer="minmax")]
            ),
            "tries no scales",
        ),
    ],
)
def test_what_cannot_be_is_refused(make: object, told: str) -> None:
    assert callable(make)
    with pytest.raises(UserError, match=told):
        make()
