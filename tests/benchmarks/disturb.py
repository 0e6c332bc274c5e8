"""Kill and stop ten kinds of command at random instants, and compare what comes out.

`python -m tests.benchmarks.disturb --work DIR [--kills 40] [--stops 20]` runs each kind once
undisturbed: every graph, a sweep, publishing to another file system, gc, verify and report, on a
tiny random model. Then it starts them again, SIGKILLs all processes at a
random instant, and gives the same command once more; or it SIGSTOPs them, collects garbage beside
them, and lets them go on. Each time the files must have the same bytes, nothing that was stored may
be built again, the store must be whole, and the next gc must leave nothing over.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.store import Store, StoreConfig, collect
from tests.benchmarks.crash import digests
from tests.benchmarks.launch import REPOSITORY, as_sweep, launch, on_text, presswork
from tests.benchmarks.memory import text_of_bytes
from tests.benchmarks.random_llama import TINY, write_model

_BUILT = re.compile(r" built (\S+) in ")
PASSING = ("calibrate", "propagate", "cache", "measure", "forward", "gradient")
"""Nodes whose results, or some of them, are held in memory: a kill loses those."""
STOPPED = 1.5
"""Seconds for which processes are stopped, beside what gc takes meanwhile."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """A command by the folder that it works in; what of its files must have the same bytes.

    `before` is run once, undisturbed, where the command needs a finished run. `frees`: it may free
    what is stored, so that a run after it builds it again.
    """

    name: str
    command: Callable[[Path], list[str]]
    before: Callable[[Path], list[str]] | None = None
    products: str = "run*/checkpoint"
    frees: bool = False


@dataclass(kw_only=True, slots=True)
class Found:
    """Disturbances by kind of command, and what was wrong after them, in words."""

    kills: Counter[str] = field(default_factory=Counter)
    stops: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


def kinds(model: Path, text: Path, elsewhere: Path) -> tuple[Kind, ...]:
    """The ten kinds; `elsewhere` is a folder on another file system than the work."""
    small = ["dataset.num_samples=4", "dataset.sequence_length=48", "eval=none"]

    def on(*more: str) -> Callable[[Path], list[str]]:
        return lambda place: on_text(model, text, place, *small, *more)

    def whole(place: Path) -> list[str]:
        return on()(place)

    def beside(*words: str) -> Callable[[Path], list[str]]:
        return lambda place: presswork(f"store.dir={place / 'store'}", *words)

    auto = ["scheme=auto", "modifier=rtn", "scheme.budget.bits_per_weight=5"]
    sweep = ["modifier=rtn,gptq", "calibrate.propagate=original"]
    return (
        Kind(name="calibrated", command=on()),
        Kind(name="original", command=on("calibrate.propagate=original", "kv_cache=fp8")),
        Kind(
            name="data_free",
            command=lambda place: presswork(
                *("model=local", f"model.path={model}", "graph=data_free", "modifier=rtn"),
                *("scheme=fp8_dynamic", "eval=none", f"store.dir={place / 'store'}"),
                f"hydra.run.dir={place / 'run'}",
            ),
        ),
        Kind(name="budget", command=on("calibrate.propagate=original", *auto)),
        Kind(name="budget_forward", command=on("graph=budget_forward", *auto)),
        Kind(
            name="sweep",
            command=lambda place: as_sweep(on(*sweep, f"hydra.sweep.dir={place / 'sweep'}")(place)),
            products="sweep/*/checkpoint",
        ),
        Kind(
            name="publish",
            before=whole,
            command=lambda place: on(f"hydra.run.dir={elsewhere / place.name}")(place),
            products=str(elsewhere / "*" / "checkpoint"),
        ),
        Kind(
            name="gc",
            before=whole,
            command=beside("mode=gc", "gc.max_bytes=0", "gc.dry_run=false"),
            frees=True,
        ),
        Kind(name="verify", before=whole, command=beside("mode=verify")),
        Kind(
            name="report",
            before=whole,
            command=lambda place: beside("mode=report", f"report.run={place / 'run'}")(place),
            products="run/re*",
        ),
    )


@dataclass(kw_only=True, slots=True)
class Bench:
    """One kind being disturbed below `place`; `seconds` is what it takes undisturbed."""

    kind: Kind
    place: Path
    draw: random.Random
    found: Found
    reference: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def store(self) -> Store:
        return Store(StoreConfig(dir=str(self.place / "store")))

    def afresh(self) -> None:
        """Start from nothing, or from the finished run that the command needs."""
        if not self.reference:
            self._emptied()
            self.seconds = launch(self.kind.command(self.place)).seconds
            self.reference = self.products()
        self._emptied()

    def _emptied(self) -> None:
        shutil.rmtree(self.place, ignore_errors=True)
        self._removed_elsewhere()
        self.place.mkdir(parents=True)
        if self.kind.before is not None:
            launch(self.kind.before(self.place))

    def products(self) -> dict[str, str]:
        """sha256 of the product's files, without times and places that differ from run to run."""
        pattern = Path(self.kind.products)
        root = Path(pattern.anchor) if pattern.is_absolute() else self.place
        relative = str(pattern.relative_to(root)) if pattern.is_absolute() else str(pattern)
        found: dict[str, str] = {}
        for path in sorted(root.glob(relative)):
            files = digests(path) if path.is_dir() else digests(path.parent)
            name = path.name if path.is_dir() else path.parent.name
            found |= {f"{path.parent.name}/{name}/{file}": sha for file, sha in files.items()}
        return {name: sha for name, sha in found.items() if not name.endswith("run.log")}

    def killed(self) -> None:
        """Kill the command once, give it again, and check what there is."""
        self.afresh()
        delay = self.draw.uniform(0.2, 1.0) * self.seconds
        first = launch(self.kind.command(self.place), kill_after=delay)
        if not first.killed:
            return
        self.found.kills[self.kind.name] += 1
        before = self.built()
        launch(self.kind.command(self.place))
        self.check(f"killed after {delay:.2f} s", before)

    def stopped(self) -> None:
        """Stop the command, free all that may be freed beside it, and let it go on."""
        self.afresh()
        process = subprocess.Popen(
            self.kind.command(self.place),
            cwd=REPOSITORY,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        delay = self.draw.uniform(0.2, 1.0) * self.seconds
        time.sleep(delay)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGSTOP)
            words = ["mode=gc", "gc.max_bytes=0", "gc.dry_run=false"]
            command = presswork(f"store.dir={self.place / 'store'}", *words)
            beside = subprocess.Popen(
                command, cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            time.sleep(STOPPED)
            os.killpg(process.pid, signal.SIGCONT)
            self.found.stops[self.kind.name] += 1
            if beside.wait():
                self.found.wrong.append(f"{self.kind.name}: gc beside it failed")
        if code := process.wait():
            self.found.wrong.append(f"{self.kind.name}: left with {code}, stopped at {delay:.2f} s")
        self.check(f"stopped after {delay:.2f} s", Counter())

    def check(self, how: str, before: Counter[str]) -> None:
        """Note all that is wrong now; `before` is what had been built when it was disturbed."""
        wrong = []
        if self.kind.frees:
            launch(on_again(self.kind, self.place))
        twice = [] if self.kind.frees else [n for n, c in (before + self.logged()).items() if c > 1]
        wrong += [f"{name} was built twice" for name in twice if not is_passing(name)]
        now = self.products()
        differ = {n for n in {*now, *self.reference} if now.get(n) != self.reference.get(n)}
        if self.kind.name != "report":  # its page says when it was made
            wrong += [f"{name} differs" for name in sorted(differ)]
        elif not now:
            wrong.append("there is no report")
        store = self.store
        wrong += [f"{finding.node}: {finding.problem}" for finding in store.verify(repair=False)]
        collect(store, max_bytes=1 << 40, dry_run=False)
        wrong += [f"{path.name} is left over" for path in self.leftovers(store)]
        self.found.wrong += [f"{self.kind.name}, {how}: {text}" for text in wrong]

    def built(self) -> Counter[str]:
        """What was built according to the logs, by folder and node; the logs go."""
        counts = self.logged()
        for log in self.logs():
            log.unlink()
        return counts

    def logged(self) -> Counter[str]:
        counts: Counter[str] = Counter()
        for log in self.logs():
            names = _BUILT.findall(log.read_text(encoding="utf-8"))
            counts.update(f"{log.parent.name}/{name}" for name in names)
        return counts

    def logs(self) -> list[Path]:
        if self.kind.before is not None and self.kind.name != "publish":
            return []
        return [*self.place.glob("run/run.log"), *self.place.glob("sweep/*/run.log")]

    def leftovers(self, store: Store) -> list[Path]:
        layout = store.layout
        hidden = [*self.place.rglob(".*.partial"), *self.place.rglob(".*.old")]
        held = [*layout.tmp.iterdir(), *layout.live.iterdir()]
        return [path for path in (*held, *hidden) if not path.name.startswith("note.")]

    def _removed_elsewhere(self) -> None:
        pattern = Path(self.kind.products)
        if pattern.is_absolute():
            for path in Path(pattern.anchor).glob(str(pattern.parent.relative_to(pattern.anchor))):
                shutil.rmtree(path)


def is_passing(name: str) -> bool:
    return name.partition("/")[2].startswith(PASSING)


def on_again(kind: Kind, place: Path) -> list[str]:
    """The run that builds again what `kind` has freed."""
    if kind.before is None:
        raise ValueError(f"{kind.name} frees nothing")
    return kind.before(place)


def disturb(
    model: Path, text: Path, work: Path, elsewhere: Path, *, kills: int, stops: int, seed: int = 0
) -> Found:
    """Disturb all kinds in turn until there were enough kills and stops."""
    found, draw = Found(), random.Random(seed)
    benches = [
        Bench(kind=kind, place=work / kind.name, draw=draw, found=found)
        for kind in kinds(model, text, elsewhere)
    ]
    for counter, most, act in (
        (found.kills, kills, Bench.killed),
        (found.stops, stops, Bench.stopped),
    ):
        while counter.total() < most:
            for bench in benches:
                if counter.total() < most:
                    told = len(found.wrong)
                    act(bench)
                    sys.stdout.writelines(f"{line}\n" for line in found.wrong[told:])
                    sys.stdout.write(f"{counter.total()} of {most}: {bench.kind.name}\n")
                    sys.stdout.flush()
    return found


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--elsewhere", type=Path, help="a folder on another file system")
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--stops", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    args.work.mkdir(parents=True, exist_ok=True)
    elsewhere = args.elsewhere or Path("/dev/shm") / f"presswork-{os.getpid()}"
    model = write_model(args.work / "model", TINY)
    text = text_of_bytes(args.work / "text.txt", 50_000)
    try:
        counts = {"kills": args.kills, "stops": args.stops, "seed": args.seed}
        found = disturb(model, text, args.work, elsewhere, **counts)
    finally:
        shutil.rmtree(elsewhere, ignore_errors=True)
    told = {"kills": dict(found.kills), "stops": dict(found.stops), "wrong": len(found.wrong)}
    sys.stdout.write(json.dumps(told) + "\n")
    return 1 if found.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
