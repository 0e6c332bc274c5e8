"""presswork against llm-compressor on a GPU: seconds a layer, whole process, memory of both kinds.

Random llamas with the widths of Llama-3.1-8B, few layers and many, whose files are the same. Both
calibrate on the same tokens; seconds a layer are the difference between many and few.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

from tests.benchmarks.launch import CommandFailed, launch, on_text, result_of
from tests.benchmarks.memory import text_of_bytes
from tests.benchmarks.random_llama import TINY, Shape, write_model

WIDE = Shape(hidden=4096, intermediate=14336, heads=32, kv_heads=8, vocab=1024)
SCHEMES = {
    "w4a16": ("modifier=gptq", "W4A16", "gptq"),
    "nvfp4": ("modifier=rtn", "NVFP4", "rtn"),
    "fp8_dynamic": ("modifier=rtn", "FP8_DYNAMIC", "rtn"),
}
"""Our scheme -> our modifier, their preset and their solver."""
DATA_FREE = ("fp8_dynamic",)
SCRIPT = Path(__file__).with_name("peer_run.py")


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """What both are given. `peer` is the interpreter that has llm-compressor; empty: only ours."""

    work: Path
    device: str
    peer: str
    shape: Shape = WIDE
    layers: tuple[int, int] = (2, 10)
    samples: int = 64
    length: int = 2048
    batch_size: int = 4
    more: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Spent:
    """One process: seconds, host memory, tensors on the device, and what the driver saw used."""

    seconds: float
    host_bytes: int
    device_bytes: int | None = None
    driver_bytes: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """One scheme: what each process spent, by "ours 2" or "peer 10", and what went wrong."""

    scheme: str
    layers: tuple[int, int]
    spent: dict[str, Spent]
    problems: dict[str, str]

    def layer_seconds(self, side: str) -> float | None:
        few, many = self.layers
        if not {f"{side} {few}", f"{side} {many}"} <= self.spent.keys():
            return None
        whole = self.spent[f"{side} {many}"].seconds - self.spent[f"{side} {few}"].seconds
        return whole / (many - few)


def prepare(setting: Setting) -> None:
    """Write text and models: those with fewer layers link to the files of the one with most."""
    setting.work.mkdir(parents=True, exist_ok=True)
    text_of_bytes(setting.work / "text.txt", 2 * setting.samples * setting.length)
    if not (setting.work / "tiny").is_dir():
        write_model(setting.work / "tiny", TINY)
    few, many = setting.layers
    whole = setting.work / f"llama-{many}"
    if not whole.is_dir():
        write_model(whole, replace(setting.shape, layers=many))
    if not (setting.work / f"llama-{few}").is_dir():
        shorten(whole, setting.work / f"llama-{few}", few)


def shorten(model: Path, target: Path, layers: int) -> None:
    """A folder with the first layers of a model of `random_llama`, which links to its weights."""
    target.mkdir()
    index = json.loads((model / "model.safetensors.index.json").read_text(encoding="utf-8"))
    kept = {f"model-layer-{number:03d}.safetensors" for number in range(layers)}
    kept.add("model-outside.safetensors")
    index["weight_map"] = {n: f for n, f in index["weight_map"].items() if f in kept}
    for path in model.iterdir():
        if path.name in kept:
            os.link(path, target / path.name)
        elif not path.name.startswith("model-layer-"):
            shutil.copyfile(path, target / path.name)
    (target / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    config = json.loads((target / "config.json").read_text(encoding="utf-8"))
    config["num_hidden_layers"] = layers
    (target / "config.json").write_text(json.dumps(config), encoding="utf-8")


def compare(setting: Setting, scheme: str, deadline: float) -> Comparison:
    """Both on every number of layers, unmeasured on a tiny model first, until the deadline."""
    layers = setting.layers if scheme not in DATA_FREE else setting.layers[1:] * 2
    spent: dict[str, Spent] = {}
    problems: dict[str, str] = {}
    sides = ("ours", "peer") if setting.peer else ("ours",)
    for name in ("tiny", *map(str, dict.fromkeys(layers))):
        for side in sides:
            if time.perf_counter() > deadline:
                problems[f"{side} {name}"] = "not run: no time left"
                continue
            try:
                found = (ours if side == "ours" else theirs)(setting, scheme, name)
            except (CommandFailed, OSError) as error:
                problems[f"{side} {name}"] = str(error)[-600:]
                continue
            if name != "tiny":
                spent[f"{side} {name}"] = found
            sys.stderr.write(f"{scheme}: {side} {name}: {found.seconds:.1f} s\n")
    return Comparison(scheme=scheme, layers=layers, spent=spent, problems=problems)


def model_of(setting: Setting, name: str) -> Path:
    return setting.work / ("tiny" if name == "tiny" else f"llama-{name}")


def ours(setting: Setting, scheme: str, name: str) -> Spent:
    """One run of presswork in a fresh store; its tokens are copied for the peer."""
    folder, free = setting.work / "ours", scheme in DATA_FREE
    shutil.rmtree(folder, ignore_errors=True)
    calibrated = (
        f"dataset.num_samples={setting.samples}",
        f"dataset.sequence_length={setting.length}",
        f"calibrate.batch_size={setting.batch_size}",
    )
    command = on_text(
        model_of(setting, name),
        setting.work / "text.txt",
        folder,
        "eval=none",
        f"scheme={scheme}",
        SCHEMES[scheme][0],
        f"device={setting.device}",
        *(() if free else calibrated),
        *setting.more,
    )
    if free:
        command = [word for word in command if not word.startswith("dataset")] + ["graph=data_free"]
    with driver_peak() as seen:
        found = launch(command, env={"HF_HUB_OFFLINE": "1"})
    for tokens in (folder / "store").rglob("tokens.safetensors"):
        shutil.copyfile(tokens, setting.work / "tokens.safetensors")
    nodes = result_of(folder / "run")["nodes"]
    peaks = [n["peak_device_bytes"] for n in nodes if n["peak_device_bytes"] is not None]
    return Spent(
        seconds=found.seconds,
        host_bytes=found.peak_rss_bytes,
        device_bytes=max(peaks, default=None),
        driver_bytes=max(seen, default=None),
    )


def theirs(setting: Setting, scheme: str, name: str) -> Spent:
    """One run of llm-compressor."""
    _, preset, solver = SCHEMES[scheme]
    folder = setting.work / "peer"
    shutil.rmtree(folder, ignore_errors=True)
    command = [setting.peer, str(SCRIPT), str(model_of(setting, name))]
    command += [str(setting.work / "tokens.safetensors"), str(folder)]
    command += ["--preset", preset, "--solver", solver, "--batch-size", str(setting.batch_size)]
    if scheme in DATA_FREE:
        command.append("--data-free")
    with driver_peak() as seen:
        found = launch(command)
    told = json.loads(found.output.strip().splitlines()[-1])
    return Spent(
        seconds=found.seconds,
        host_bytes=found.peak_rss_bytes,
        device_bytes=told["peak_device_bytes"],
        driver_bytes=max(seen, default=None),
    )


@contextmanager
def driver_peak() -> Iterator[list[int]]:
    """Memory of the first GPU as the driver sees it, above what was used before; none without one.

    It has one entry, the largest, once the context is left.
    """
    seen: list[int] = []
    if find_spec("pynvml") is None:
        yield seen
        return
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        yield seen
        return
    gpu = pynvml.nvmlDeviceGetHandleByIndex(0)
    before = peak = pynvml.nvmlDeviceGetMemoryInfo(gpu).used
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.05):
            peak = max(peak, pynvml.nvmlDeviceGetMemoryInfo(gpu).used)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        done.set()
        thread.join()
        seen.append(peak - before)


def peer_python() -> str:
    """The interpreter that has llm-compressor: the one that is named, or this one if it has it."""
    own = sys.executable if find_spec("llmcompressor") else ""
    return os.environ.get("PRESSWORK_PEER_PYTHON", own)


def table(found: Sequence[Comparison]) -> str:
    """What every process spent."""
    lines = [f"{'':24}{'whole':>9}{'host':>10}{'tensors':>10}{'driver':>10}"]
    for each in found:
        for name, spent in each.spent.items():
            sizes = (spent.host_bytes, spent.device_bytes, spent.driver_bytes)
            told = "".join("         -" if s is None else f"{s / 1e9:7.2f} GB" for s in sizes)
            lines.append(f"{each.scheme + ' ' + name:24}{spent.seconds:7.1f} s{told}")
        lines += [f"{each.scheme} {name}: {text}" for name, text in each.problems.items()]
    return "\n".join(lines)
