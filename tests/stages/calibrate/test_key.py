"""What of the config is in the key, and that it is there for a reason."""

from __future__ import annotations

from collections.abc import Callable

from safetensors.torch import load_file

from stages.calibrate.config import CalibrateConfig, LayerConfig
from stages.calibrate.stage import Calibrate
from stages.compute.numerics import Numerics
from tests.stages.calibrate.conftest import Scene


def semantics(**changes: object) -> object:
    device = str(changes.pop("device", "cpu"))
    numerics = Numerics(device=device, threads=int(str(changes.pop("threads", 1))))
    config = LayerConfig(calibrate=CalibrateConfig(**changes), numerics=numerics)  # type: ignore[arg-type]
    return Calibrate(config).semantics("model.layers.0")


def test_batch_size_and_threads_are_in_the_key_and_wiring_is_not() -> None:
    assert semantics(batch_size=2) != semantics(batch_size=3)
    assert semantics(threads=1) != semantics(threads=2)
    assert semantics(propagate="original") == semantics(propagate="compressed")
    assert semantics(experts="routed") == semantics(experts="all")


def test_how_gram_matrices_are_summed_is_in_the_key_of_a_gpu_only() -> None:
    on_gpu, on_cpu = semantics(device="cuda"), semantics(device="cpu")
    assert isinstance(on_gpu, dict) and isinstance(on_cpu, dict)
    assert on_gpu.keys() - on_cpu.keys() == {"gram"}


def test_the_same_work_twice_gives_the_same_bytes(scene: Callable[..., Scene]) -> None:
    made = scene("llama", lengths=(24, 7, 24, 15, 3))
    files = []
    for _ in range(2):
        drafts = made.calibrate(0, "activations", "gram")
        files.append({f.name: f.read_bytes() for d in drafts.values() for f in d.path.iterdir()})
        drafts["gram"].file("gram.safetensors").unlink()
    assert files[0] == files[1]


def test_another_batch_size_is_another_sum_of_the_same_rows(scene: Callable[..., Scene]) -> None:
    made = scene("llama", lengths=(24, 7, 24, 15, 3))
    grams = []
    for size in (1, 3):
        draft = made.calibrate(0, "gram", batch_size=size)["gram"]
        grams.append(load_file(draft.file("gram.safetensors")))
        assert set(draft.meta["tokens"].values()) == {73}
    for name, gram in grams[0].items():
        assert (gram - grams[1][name]).norm() < 1e-4 * gram.norm()
