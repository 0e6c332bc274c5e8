"""Plan-time checks of modifiers that would do nothing, or something that was not said."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from pipeline.errors import UserError
from pipeline.stage import Site
from stages.compress.config import CompressConfig
from stages.compress.modifiers.base import ExpertPruner, Solver, Transform
from stages.compress.pairs.pair_kinds import other_pairs
from stages.model.blueprint import Blueprint, Subgraph
from stages.model.pairs.proven import PAIRS, ProvenPairs
from stages.schemes.resolve import Resolution

PENDING = "the pairs of modules between which transforms move factors are found and proven first"


def experts_problem(config: CompressConfig, facts: Mapping[str, Any]) -> UserError | None:
    """What is wrong where experts are to be pruned and the graph does not, or vice versa."""
    asked = [m.kind for m in config.modifiers if isinstance(m, ExpertPruner)]
    pruned = getattr(facts.get("source"), "experts", None) is not None
    if asked and not pruned:
        return UserError(
            f"modifier {asked[0]!r} is in this config, and nothing in its graph prunes experts",
            remedy=f"say modifier=[{asked[0]},...], which adds what does, with graph=calibrated; "
            "in a file of one's own the defaults have `base` first, and name it as an option of "
            "the group `modifier`",
        )
    if pruned and not asked:
        return UserError(
            "the graph prunes experts, but no modifier says so",
            remedy="say modifier=[reap,...]: the recipe of the checkpoint would lack it",
        )
    return None


def with_pairs(config: CompressConfig, site: Site, blueprint: Blueprint) -> Blueprint | None:
    """The blueprint with the pairs that transforms use; None where they are yet to be proven.

    In mode run that is done now, so that a model without any is known before all else.
    """
    if not config.transforms:
        return blueprint
    if PAIRS not in site.facts:
        raise UserError(
            f"modifier {config.transforms[0].kind!r} moves factors between modules, and nothing in "
            "this graph finds and proves which",
            remedy="add to the graph's nodes `pairs: {kind: pairs, inputs: {model: patch}}`, and "
            "to the inputs of compress `pairs: pairs` (as conf/graph/calibrated.yaml does)",
        )
    proven = site.artifact(PAIRS)
    return None if proven is None else ProvenPairs.load(proven).attached(blueprint)


def profile_problem(config: CompressConfig, facts: Mapping[str, Any]) -> UserError | None:
    """What is wrong where zeros are to be shared out by outliers that nothing counts."""
    if config.profile is None or "outliers" in facts:
        return None
    return UserError(
        f"modifier {config.profile.kind!r} has sparsity_profile=owl, and nothing in this graph "
        "counts the outliers of all layers",
        remedy="say graph=calibrated; a graph of your own needs its node `owl`, and it as the "
        "input `outliers` of compress",
    )


def rotation_problem(config: CompressConfig, blueprint: Blueprint) -> UserError | None:
    """The error of a graph whose model is not rotated as the modifiers say; None: it is."""
    asked = config.rotation
    given = None if blueprint.rotation is None else blueprint.rotation.asked
    if given == (None if asked is None else asked.rotation.asked()):
        return None
    if asked is None:
        return UserError(
            "the model is rotated, and no modifier says so",
            remedy="name the modifier (modifier=[spinquant,gptq]), or say "
            "graph.roles.blueprint=patch",
        )
    return UserError(
        f"modifier {asked.kind!r} rotates the model, and this graph reads it as it is",
        remedy="say graph=calibrated; a graph of your own needs its nodes `rotations` and "
        "`rotate`, `blueprint: patch` in its roles, and ${graph.roles.blueprint} as the `model` "
        "of what reads weights",
    )


def idle_modifiers(
    config: CompressConfig, paired: Blueprint | None, found: Resolution
) -> Iterator[UserError]:
    """One error for every modifier that would change nothing of the model.

    paired: see `with_pairs`; while it is None, nothing is said of transforms. Pairs of which no
    reader will be quantized are none: nothing is moved there.
    """
    if paired is not None and found.modules:
        paired = replace(paired, layers=tuple(_moving(x, found) for x in paired.layers))
    for modifier in config.local:
        reason = "" if paired is None else modifier.idle(paired)
        if not found.modules and not config.scheme.candidates:
            reason = "the scheme quantizes no weights"
        if reason:
            others = ""
            if paired is not None and found.modules and isinstance(modifier, Transform):
                others = other_pairs(modifier.kind, paired)
            yield UserError(
                f"modifier {modifier.kind!r} would do nothing: {reason}",
                remedy=others or "leave it out: modifier=[] for none at all",
            )


def idle_signs(config: CompressConfig, found: Resolution) -> Iterator[UserError]:
    """The error of `negative_scales` where no weight is quantized to symmetric integers."""
    solver = config.solver
    if solver is None or not solver.negates or config.scheme.candidates or not found.modules:
        return
    formats = [one.scheme.weights for one in found.modules.values()]
    if not any(w is not None and w.type == "int" and w.symmetric for w in formats):
        yield UserError(
            f"modifier.{solver.kind}.negative_scales is true, but no weight is quantized to "
            "symmetric integers, whose codes alone have one value more on one side",
            remedy="leave it out, or take such a scheme: w4a16, w4a16_g64, w3a16, w8a8",
        )


def _moving(layer: Subgraph, found: Resolution) -> Subgraph:
    """The layer with those of its pairs that have a reader that is quantized."""
    pairs = tuple(p for p in layer.pairs if not found.modules.keys().isdisjoint(p.targets))
    return replace(layer, pairs=pairs)


def transform_notes(config: CompressConfig, *, pending: bool) -> Iterator[str]:
    """What a plan says of transforms and pruners: what is pending, open or not to be expected."""
    if config.transforms and pending:
        yield PENDING
    if config.pruner is not None and config.scheme.formats():
        yield (
            f"{config.pruner.kind} makes no checkpoint smaller: zeros are stored like other codes, "
            "as engines of today read no sparse format of compressed-tensors"
        )


def unsaid_rounding(config: CompressConfig) -> Iterator[str]:
    """A warning where modifiers come before a solver that is not there."""
    before = [m for m in config.local if not isinstance(m, Solver)]
    if before and config.solver is None and config.scheme.formats():
        kinds = [modifier.kind for modifier in before]
        yield (
            f"no solver is named: after {', '.join(kinds)} weights are rounded to nearest; say "
            f"modifier=[{','.join([*kinds, 'gptq'])}] for GPTQ, "
            f"modifier=[{','.join([*kinds, 'rtn'])}] if rounding is meant"
        )
