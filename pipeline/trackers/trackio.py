"""Trackio adapter: config and metrics of a run, on this machine or in a Space."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.errors import UserError
from pipeline.trackers.tracked import Tracked, demand


@dataclass(frozen=True, kw_only=True, slots=True)
class Trackio:
    """`space` is a Hugging Face Space to send to; null keeps it on this machine (TRACKIO_DIR)."""

    project: str = "presswork"
    space: str | None = None

    def __post_init__(self) -> None:
        demand("trackio", "trackio")

    def log(self, run: Tracked) -> None:
        import trackio

        try:
            trackio.init(
                project=self.project,
                space_id=self.space,
                name=run.name,
                group=run.group,
                config={**run.params, "status": run.status},
            )
            trackio.log(dict(run.metrics))
            trackio.finish()
        except (OSError, ValueError, RuntimeError) as error:
            raise UserError(
                f"Trackio could not be told: {error}", remedy="look at tracker.space"
            ) from error
