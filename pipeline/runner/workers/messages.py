"""Messages between a driver and its workers, pickled: orders to a worker, events from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.planning.plan import Plan
from pipeline.runner.held import HeldResult
from pipeline.runner.schedule import Outcome
from pipeline.store import StoreConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class Setup:
    """What a worker is told first. `driver` is the driver's folder for transient results, in the
    store: where workers are `far`, on other machines, each has one of its own instead.

    `sharers` workers share this machine's memory. `packages` and `libraries` are what the worker's
    signature tells of (`pipeline.machine.signature`).
    """

    store: StoreConfig
    driver: Path
    far: bool
    keep_transient: bool
    sharers: int
    device: str
    packages: tuple[str, ...]
    libraries: tuple[str, ...]
    paths: tuple[str, ...] = ()
    """Where Python finds modules: `sys.path` of the driver."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Follow:
    """The plan whose nodes are to be built from now on."""

    plan: Plan


@dataclass(frozen=True, kw_only=True, slots=True)
class Build:
    """Build a node. `inputs` are transient results by key that the worker has not made itself."""

    name: str
    inputs: Mapping[str, HeldResult] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Forget:
    """Let go of transient results that nobody reads any more."""

    keys: frozenset[str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Stop:
    """Store what is done, and end."""


Order = Setup | Follow | Build | Forget | Stop


@dataclass(frozen=True, kw_only=True, slots=True)
class Ready:
    """A worker is there, on a machine of such a name, and has such a signature."""

    signature: Mapping[str, str]
    host: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Computed:
    """A node is computed: its results can be read, those for the store by this worker only.

    `held` are its transient results, in files that the driver owns from now on. `storing` are keys
    of what is on its way into the store; `Done` tells when it is there.
    """

    name: str
    held: tuple[HeldResult, ...] = ()
    storing: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True, slots=True)
class Done:
    """The outcome of a node, all its results in their place."""

    outcome: Outcome


@dataclass(frozen=True, kw_only=True, slots=True)
class Failed:
    """What made a node fail, or `storing` its results, and where that was raised.

    `lost` are keys of transient results that nobody has any more.
    """

    name: str
    error: BaseException
    traceback: str = ""
    storing: bool = False
    lost: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """How far a node is: 0 to 1, and a word on it."""

    name: str
    fraction: float
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Told:
    """A sentence for the user."""

    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Logged:
    """A record for the run's log."""

    logger: str
    level: int
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Ended:
    """A worker is no more, for such a reason."""

    reason: str


Event = Ready | Computed | Done | Failed | Progress | Told | Logged | Ended
