"""Workers that are actors of a Ray cluster: one that is there, or one started on this machine.

Ray places them, moves results between machines, and tells when a machine or a process is gone. An
actor, not a task, is a worker, since it has its GPU and what it read of the model for as long as it
lives; each node is a call of its method `build`, which Ray never repeats by itself.
"""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import psutil

from pipeline.content import Content, Memory
from pipeline.errors import UserError
from pipeline.graph import Ref
from pipeline.machine.devices import usable_cpus
from pipeline.machine.variables import handed_on, only, without_places
from pipeline.runner.held import HeldResult
from pipeline.runner.schedule import Lost, passing_keys, transient_outputs
from pipeline.runner.workers.crew import Crew
from pipeline.runner.workers.messages import (
    Build,
    Computed,
    Ended,
    Failed,
    Follow,
    Forget,
    Order,
    Setup,
    Stop,
)
from pipeline.runner.workers.pool import Handle, Hear
from pipeline.runner.workers.ray_body import Body, contents

PRIVATELY = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
"""Variables of a cluster that is started here: it tells nobody of its use."""

SLOWLY = {"RAY_raylet_start_wait_time_s": "200"}
"""Seconds that a busy machine may take to start one; Ray's own 30 are too few there."""

EVENTS, END = "events", "end"
"""Groups of methods that need not wait for a node that is being built."""

STORING = 60.0
"""Seconds that a worker may take to store what is done, when a run ends."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cluster:
    """What a run asks of Ray: the `address` of a cluster (None: one started here), and workers.

    `threads` is the number of cores of each; on GPUs each has one of those, too.
    """

    address: str | None
    workers: int | None
    threads: int
    device: str

    @contextmanager
    def crew(self) -> Iterator[Crew]:
        """Context in which the cluster is connected to; its workers."""
        ray = installed_ray()
        kind = self.device.partition(":")[0]
        with connected(ray, self.address, (self.workers or 0) * self.threads):
            names = tuple(f"ray#{number}" for number in range(self._count(ray, kind)))

            def hire(setup: Setup, name: str, hear: Hear) -> Handle:
                del name
                return RayWorker(ray, self, setup, hear)

            yield Crew(device=kind, names=names, hire=hire, far=True)

    def _count(self, ray: Any, kind: str) -> int:
        """How many workers the cluster has room for, at most as many as are asked for."""
        there = ray.cluster_resources()
        most = int(there.get("CPU", 0) // self.threads)
        if kind == "cuda":
            most = min(most, int(there.get("GPU", 0)))
        if not most:
            raise UserError(
                f"the Ray cluster has {there.get('CPU', 0):.0f} cores and {there.get('GPU', 0):.0f}"
                f" GPUs; a worker takes {self.threads} cores"
                + (" and a GPU" if kind == "cuda" else ""),
                remedy="lower runner.threads, or start more nodes: `ray start --address=...`",
            )
        return min(self.workers or most, most)


def installed_ray() -> Any:
    """The module `ray`. Raises UserError where it is not installed."""
    try:
        import ray
    except ImportError:
        raise UserError(
            "runner=ray needs Ray, which is not installed", remedy="pip install 'presswork[ray]'"
        ) from None
    return ray


@contextmanager
def connected(ray: Any, address: str | None, cores: int = 0) -> Iterator[None]:
    """Context of a connection to a cluster; one that this process has already is left as it is.

    A cluster that is started here has no dashboard, tells nobody of its use, and sees of the
    environment what workers may see.
    """
    if ray.is_initialized():
        yield
        return
    quiet = {"log_to_driver": False, "configure_logging": False, "include_dashboard": False}
    try:
        if address is None:
            with only({**SLOWLY, **handed_on(os.environ), **PRIVATELY}):
                ray.init(address="local", num_cpus=max(cores, usable_cpus()), **quiet)
        else:
            del quiet["include_dashboard"]
            ray.init(address=address, **quiet)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        first = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(
            f"the Ray cluster {address or 'on this machine'} cannot be reached: {first}",
            remedy="look at `ray status` there; runner.address=auto takes the one of this machine",
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def described(address: str | None) -> Iterator[tuple[str, str]]:
    """Rows on a cluster for people: Ray's version, and each machine with what it has."""
    try:
        ray = installed_ray()
        if address is None:
            yield "ray", f"{ray.__version__}; a cluster is started here for each run"
            return
        with connected(ray, address):
            yield "ray", f"{ray.__version__}, connected to {address}"
            for machine in ray.nodes():
                yield f"machine {machine['NodeManagerHostname']}", _resources(machine)
    except UserError as error:
        yield "ray", str(error)


def _resources(machine: Mapping[str, Any]) -> str:
    if not machine["Alive"]:
        return "gone"
    there = machine["Resources"]
    memory = there.get("memory", 0) / 1e9
    return f"{there.get('CPU', 0):.0f} cores, {there.get('GPU', 0):.0f} GPUs, {memory:.1f} GB"


class RayWorker:
    """An actor as the driver has it: one thread sends orders, one hears events."""

    def __init__(self, ray: Any, cluster: Cluster, setup: Setup, hear: Hear) -> None:
        self._ray, self._hear, self._setup = ray, hear, setup
        gpus = {"num_gpus": 1} if cluster.device.startswith("cuda") else {}
        far = cluster.address is not None
        variables = {"env_vars": without_places(handed_on(os.environ))}
        actor = ray.remote(concurrency_groups={EVENTS: 1, END: 1})(Body)
        self._actor = actor.options(
            num_cpus=cluster.threads,
            max_restarts=0,
            max_task_retries=0,
            scheduling_strategy="SPREAD",
            **gpus,
            **({"runtime_env": variables} if far and variables["env_vars"] else {}),
        ).remote()
        self._orders: SimpleQueue[Order] = SimpleQueue()
        self._has: set[str] = set()
        self._keys: dict[str, tuple[str, ...]] = {}
        self._closed, self._there = threading.Event(), threading.Event()
        self._orders.put(setup)
        self._threads = [
            threading.Thread(target=work, name="ray worker", daemon=True)
            for work in (self._send, self._listen)
        ]
        for thread in self._threads:
            thread.start()

    def send(self, order: Order) -> None:
        self._orders.put(order)

    def close(self) -> None:
        self._closed.set()
        self._orders.put(Stop())
        if self._there.is_set():  # else it still waits for room in the cluster
            try:
                stop = self._actor.stop.options(concurrency_group=END).remote()
                self._ray.get(stop, timeout=STORING)
            except self._ray.exceptions.RayError:
                pass  # it is gone, or takes too long
        self._ray.kill(self._actor)
        for thread in self._threads:  # Ray ends a process that calls it once it is shut down
            thread.join()

    def _send(self) -> None:
        """Pass orders on in their order: a method is called once the one before it is done."""
        try:
            while not isinstance(order := self._orders.get(), Stop):
                self._pass_on(order)
        except self._ray.exceptions.RayError:
            return  # the listener tells of it

    def _pass_on(self, order: Order) -> None:
        get, actor = self._ray.get, self._actor
        if isinstance(order, Setup):
            get(actor.setup.remote(order))
        elif isinstance(order, Follow):
            graph, keep = order.plan.graph, self._setup.keep_transient
            passing = passing_keys(graph, transient_outputs(graph, keep=keep))
            self._keys = {
                name: tuple(
                    key
                    for output in node.outputs
                    if (key := graph.keys[Ref(node=name, output=output)]) in passing
                )
                for name, node in graph.nodes.items()
            }
            get(actor.follow.remote(order.plan))
        elif isinstance(order, Forget):
            self._has -= order.keys
            get(actor.forget.remote(order.keys))
        elif isinstance(order, Build):
            self._build(order)

    def _build(self, order: Build) -> None:
        new = {key: held for key, held in order.inputs.items() if key not in self._has}
        heads = [replace(held, contents={}, files={}) for held in new.values()]
        files = [_reference(held) for held in new.values()]
        wanted = self._keys[order.name]
        call = self._actor.build.options(num_returns=1 + len(wanted))
        given = call.remote(order.name, wanted, heads, *files)
        first, *made = given if wanted else [given]
        try:
            computed: Computed | None = self._ray.get(first)
        except self._ray.exceptions.ObjectLostError as error:
            self._hear(_without(order, new, error))
            return
        except self._ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, self._ray.exceptions.ObjectLostError):
                self._hear(_without(order, new, error.cause))
                return
            told = RuntimeError(_reason(error.cause or error))
            self._hear(Failed(name=order.name, error=told, traceback=str(error)))
            return
        self._has.update(new)
        if computed is not None:
            self._has.update(held.key for held in computed.held)
            at = dict(zip(wanted, made, strict=True))
            held = tuple(self._at(at[held.key], held) for held in computed.held)
            self._hear(replace(computed, held=held))

    def _listen(self) -> None:
        poll = self._actor.events.options(concurrency_group=EVENTS)
        try:
            while not self._closed.is_set():
                for event in self._ray.get(poll.remote()):
                    self._there.set()
                    self._hear(event)
            reason = "closed"
        except self._ray.exceptions.RayError as error:
            reason = _reason(error)
        self._hear(Ended(reason=reason))

    def _at(self, reference: Any, held: HeldResult) -> HeldResult:
        folder = self._setup.driver / f"{held.key}.{uuid.uuid4().hex[:8]}"
        found = {
            name: RayContent(ray=self._ray, reference=reference, name=name, size=size)
            for name, size in held.files.items()
        }
        return replace(held, path=folder, contents=found, files={})


@dataclass(frozen=True, kw_only=True, slots=True)
class RayContent:
    """Content of a file (`pipeline.content.Content`) in Ray's object store."""

    ray: Any
    reference: Any
    name: str
    size: int

    @property
    def bytes(self) -> int:
        return self.size

    @property
    def memories(self) -> tuple[Memory, ...]:
        return (Memory(name="Ray's object store", capacity=psutil.virtual_memory().total),)

    def moved(self, memory: str) -> RayContent:
        del memory
        return self

    def write(self, path: Path) -> None:
        """Raises OSError where Ray has lost the object."""
        if not self.ray.is_initialized():  # else Ray would start a cluster, and end the process
            raise OSError(f"{self.name}: the cluster was left")
        try:
            files: Mapping[str, Any] = self.ray.get(self.reference)
        except self.ray.exceptions.RayError as error:
            raise OSError(f"{self.name}: {_reason(error)}") from error
        files[self.name].tofile(path)


def _without(order: Build, inputs: Mapping[str, HeldResult], error: Any) -> Failed:
    """What is told of a node whose inputs went with a machine; all of them, if none is named."""
    name = getattr(error, "object_ref_hex", "")
    lost = {
        key for key, held in inputs.items() if name and name in map(_hex, held.contents.values())
    }
    return Failed(
        name=order.name,
        error=Lost(f"an input of {order.name} was on a machine that is gone"),
        lost=frozenset(lost or inputs),
    )


def _hex(content: Content) -> str:
    return str(content.reference.hex()) if isinstance(content, RayContent) else ""


def _reference(held: HeldResult) -> Any:
    """What Ray makes an argument from: its own object, or the files of a result made here."""
    for content in held.contents.values():
        if isinstance(content, RayContent):
            return content.reference
    return contents(held)


def _reason(error: Exception) -> str:
    """The first sentence of an error of Ray."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "no reason")
