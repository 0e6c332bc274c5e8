"""Run `saliency`: sums of what every routed expert of a layer adds to its tokens."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from pipeline.errors import StageFailed
from pipeline.stage import Task
from stages.calibrate.config import LayerConfig
from stages.calibrate.first_batch import check_first_batch
from stages.calibrate.layer_replay import Place, filled, place_of, run_layer
from stages.model.artifact_names import SALIENCY
from stages.model.experts.linear_experts import LinearExperts
from stages.model.experts.saliency import norms, saliency


@dataclass(kw_only=True, slots=True)
class Sums:
    """Sums of gate times norm, float64 [experts], and how many tokens, int64 [experts]."""

    values: Tensor
    tokens: Tensor
    _valid: Tensor | None = field(default=None)

    @contextmanager
    def watching(self, experts: LinearExperts) -> Iterator[None]:
        """Context in which forwards of `experts` are summed."""
        before = experts.on_output, experts.send_all
        experts.on_output, experts.send_all = self._add, False
        try:
            yield
        finally:
            experts.on_output, experts.send_all = before

    @contextmanager
    def forward(self, valid: Tensor | None, *, stops: bool = False) -> Iterator[None]:
        """Context of one forward; valid: bool [b, T], False for tokens that do not count."""
        del stops
        self._valid = valid
        try:
            yield
        finally:
            self._valid = None

    def _add(self, expert: int, rows: Tensor, output: Tensor, gate: Tensor | None) -> None:
        found = norms(output, gate)
        if self._valid is not None:
            found = found[self._valid.flatten()[rows]]
        self.values[expert] += found.sum()
        self.tokens[expert] += len(found)


def run(config: LayerConfig, task: Task) -> None:
    """Write the wanted outputs of the stage for the layer `task.member`."""
    config.numerics.apply()
    place = place_of(task, config.numerics.device)
    experts = experts_in(place)
    count = 0 if experts is None else len(experts)
    sums = Sums(
        values=torch.zeros(count, dtype=torch.float64, device=place.device),
        tokens=torch.zeros(count, dtype=torch.int64, device=place.device),
    )
    with filled(place, place.source):
        check_first_batch(task, place, config.calibrate.sequences)
        if experts is None:
            run_layer(task, place, config.calibrate.sequences, None)
        else:
            with sums.watching(experts):
                run_layer(task, place, config.calibrate.sequences, sums)
    if not bool(sums.values.isfinite().all()):
        raise StageFailed(
            f"the outputs of some experts of {place.subgraph.name} are not finite",
            remedy="check the model's weights, or run it in a wider dtype",
        )
    draft = task.outputs.get(SALIENCY)
    if draft is not None:
        values = saliency(sums.values, sums.tokens)
        found = {"values": values.tolist(), "tokens": sums.tokens.tolist()}
        draft.write_json(f"{SALIENCY}.json", found)


def experts_in(place: Place) -> LinearExperts | None:
    """The container of the layer's experts; None for a layer without any."""
    names = place.subgraph.expert_containers()
    if not names:
        return None
    module: nn.Module = place.skeleton.model.get_submodule(min(names))
    if not isinstance(module, LinearExperts):
        raise StageFailed(
            f"the experts of {place.subgraph.name} are taken apart by the patch "
            f"{type(module).__name__}, which does not tell what each of them adds",
            remedy="leave reap out, or leave the patch to presswork",
        )
    return module
