"""Weights & Biases adapter: config, metrics and files of a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast

from pipeline.errors import UserError
from pipeline.trackers.tracked import Tracked, demand

MODES = ("online", "offline", "disabled")


@dataclass(frozen=True, kw_only=True, slots=True)
class Wandb:
    """`mode=offline` writes below `dir`, to be sent by `wandb sync` when there is a network."""

    project: str = "presswork"
    entity: str | None = None
    mode: str = "online"
    dir: str = "outputs"

    def __post_init__(self) -> None:
        demand("wandb", "wandb")
        if self.mode not in MODES:
            raise UserError(f"mode is {self.mode!r}", remedy=f"use one of {', '.join(MODES)}")

    def log(self, run: Tracked) -> None:
        import wandb
        from wandb.errors import Error

        try:
            with wandb.init(
                project=self.project,
                entity=self.entity,
                mode=cast(Literal["online", "offline", "disabled"], self.mode),
                dir=self.dir,
                name=run.name,
                group=run.group,
                tags=[run.status],
                config=dict(run.params),
                settings=wandb.Settings(silent=True),
            ) as opened:
                opened.log(dict(run.metrics))
                for path in run.files:
                    opened.save(str(path), base_path=str(path.parent), policy="now")
        except (Error, OSError) as error:
            raise UserError(
                f"W&B could not be told: {error}", remedy="tracker.mode=offline needs no network"
            ) from error
