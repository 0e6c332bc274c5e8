"""`mode=plan` for a GPU, which need not be here: what every kind of step takes of it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline import cli
from tests.frozen.models import write_model, write_text
from tests.pipeline.machine.fake_driver import MODELS, fake_gpus

Plan = Callable[..., tuple[int, list[str], str]]
KINDS = {"calibrate", "compress", "propagate", "hidden", "eval", "generate"}
"""What computes on the device, in the default graph."""


@pytest.fixture
def words(tmp_path: Path) -> tuple[str, ...]:
    model = write_model(tmp_path / "model", "llama")
    text = write_text(tmp_path / "text.txt")
    return (
        "mode=plan",
        "model=local",
        f"model.path={model}",
        "dataset=text",
        f"dataset.path={text}",
        f"store.dir={tmp_path / 'store'}",
    )


@pytest.fixture
def plan(
    words: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Plan:
    """Exit code, lines (spaces as one) and errors of a plan of a tiny model with an eval."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def call(*more: str) -> tuple[int, list[str], str]:
        monkeypatch.setattr(sys, "argv", ["pipeline", *words, *more])
        with pytest.raises(SystemExit) as left:
            cli.main()
        told = capsys.readouterr()
        lines = [" ".join(line.split()) for line in told.out.splitlines()]
        return int(left.value.code or 0), lines, " ".join(told.err.split())

    return call


def test_every_kind_of_step_is_told_with_its_device_memory(plan: Plan) -> None:
    with fake_gpus(MODELS[0]):
        code, lines, _ = plan("device=cuda")
    assert code == 0
    start = lines.index("kind to run device memory host memory disk time")
    rows = {line.split()[0]: line for line in lines[start + 1 : -1]}
    # device memory, host memory, disk
    assert {kind for kind in rows if rows[kind].count("B ") >= 3} == KINDS
    assert rows["calibrate"].startswith("calibrate 2 ")
    assert "of the GPU, " in lines[-1] and lines[-1].endswith(" s on this machine.")


def test_a_plan_for_a_gpu_that_is_not_here_says_so(plan: Plan) -> None:
    with fake_gpus():
        code, lines, _ = plan("device=cuda:1", "plan.elsewhere=true")
    assert code == 0
    assert any(
        line.startswith("note: device=cuda:1, but the NVIDIA driver finds") for line in lines
    )
    assert lines[-1].endswith(" s on such a machine.")


def test_a_device_that_is_not_here_is_an_error_of_the_plan_too(plan: Plan) -> None:
    with fake_gpus():
        code, lines, told = plan("device=cuda")
    assert (code, lines) == (1, [])
    assert told.startswith("error: device is 'cuda', but the NVIDIA driver finds no GPU here")
    assert told.endswith("or plan.elsewhere=true for a plan of another machine")
    assert told.count("error:") == 1


def test_what_cannot_fit_is_refused_with_the_setting_that_would(plan: Plan) -> None:
    room = 1_000_000_000 + 30_000_000
    with fake_gpus(("NVIDIA Tiny", (7, 5), room)):
        code, lines, errors = plan(
            "device=cuda", "eval=none", "calibrate.batch_size=64", "dataset.sequence_length=512"
        )
        assert code == 1
        assert "of the GPU; NVIDIA Tiny has 1.03 GB" in errors
        assert "kind to run device memory host memory disk time" in lines
        (remedy,) = [word for word in errors.split() if "calibrate.batch_size=" in word]
        assert plan("device=cuda", "eval=none", remedy, "dataset.sequence_length=512")[0] == 0


def test_a_plan_for_a_cpu_does_not_speak_of_devices(plan: Plan) -> None:
    _, lines, _ = plan("device=cpu")
    assert not any("of the GPU" in line or "device memory" in line for line in lines)


def test_a_plan_for_a_gpu_imports_no_torch(words: tuple[str, ...], tmp_path: Path) -> None:
    program = (
        "import sys; sys.argv = ['pipeline', *sys.argv[1:]]\n"
        "from pipeline import cli\n"
        "try: cli.main()\n"
        "finally: assert not {'torch', 'transformers'} & sys.modules.keys()\n"
    )
    more = ("graph=data_free", "scheme=fp8_dynamic", "modifier=rtn", "eval=none", "device=cuda")
    more = (*more, "plan.elsewhere=true")
    data_free = [word for word in words if not word.startswith("dataset")]
    command = [sys.executable, "-c", program, *data_free, *more]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, "of the GPU" in done.stdout) == (0, True), done.stderr
