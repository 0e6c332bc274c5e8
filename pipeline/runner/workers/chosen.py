"""The crew that a config asks for: none, processes of this machine, or actors of a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Protocol

from pipeline.runner.workers.crew import Crew, crew_of

Crews = Callable[[], AbstractContextManager[Crew | None]]
"""Gives a context of the workers of a run, None: there are none but its own process."""


class Asked(Protocol):
    """The part of a config that says who builds nodes: `pipeline.config.root_schema`."""

    @property
    def kind(self) -> str: ...

    @property
    def devices(self) -> list[str] | None: ...

    @property
    def address(self) -> str | None: ...

    @property
    def workers(self) -> int | None: ...

    @property
    def threads(self) -> int | None: ...


def crews_of(runner: Asked, device: str) -> Crews:
    """What opens the workers that a config asks for, when there is something to build."""
    return partial(_crew, runner, device)


@contextmanager
def _crew(runner: Asked, device: str) -> Iterator[Crew | None]:
    if runner.kind != "ray":
        yield crew_of(runner.devices) if runner.devices else None
        return
    from pipeline.runner.workers.ray_cluster import Cluster  # Ray is imported where it is asked for

    cluster = Cluster(
        address=runner.address,
        workers=runner.workers,
        threads=runner.threads or 1,
        device=device,
    )
    with cluster.crew() as crew:
        yield crew
