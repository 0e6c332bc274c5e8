"""The command line in this process, with a mode `run` that does what a test wants."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from pipeline import cli
from pipeline.config.root import Config
from pipeline.errors import StageFailed, UserError
from pipeline.registry import Registry
from tests.pipeline.tiny import FILES, tiny_registry, write_files

Command = Callable[..., int]


@pytest.fixture
def ran() -> list[tuple[Config, Path]]:
    return []


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ran: list[tuple[Config, Path]]
) -> Command:
    """Runs one command in a folder of its own; gives the exit code."""
    folder = write_files(tmp_path / "conf", FILES)
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setattr(Registry, "load", staticmethod(tiny_registry))

    def run(config: Config, run_dir: Path) -> int:
        ran.append((config, run_dir))
        count = config.sections["data"]["count"]
        if count == 13:
            raise StageFailed("thirteen cannot be made", remedy="take another")
        if count == 14:
            raise KeyboardInterrupt
        if count == 15:
            raise ZeroDivisionError("fifteen")
        return 1 if count == 16 else 0

    fake = ModuleType("pipeline.modes.run")
    fake.run = run  # type: ignore[attr-defined]  # a module made here has no such name yet
    monkeypatch.setitem(sys.modules, "pipeline.modes.run", fake)

    def call(*words: str) -> int:
        argv = ["--config-dir", str(folder), "--config-name", "tiny", *words]
        monkeypatch.setattr(sys, "argv", ["pipeline", *argv])
        with pytest.raises(SystemExit) as left:
            cli.main()
        return int(left.value.code or 0)

    return call


def test_a_run_gets_a_folder_of_its_own_with_its_config(
    command: Command, ran: list[tuple[Config, Path]]
) -> None:
    assert command("mode=run") == command("mode=run") == 0
    first, second = (folder for _, folder in ran)
    assert first != second
    assert first.parent.parent == Path.cwd() / "outputs/runs"
    assert (first / "config.yaml").is_file() and (first / "run.log").is_file()
    assert not (first / ".hydra").exists()


def test_the_written_config_runs_again_by_the_command_in_it(
    command: Command, ran: list[tuple[Config, Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert command("mode=run", "data.count=5", "modifier=[reverse,upper]") == 0
    folder = str(ran[0][1])
    argv = ["pipeline", "--config-dir", folder, "--config-name", "config"]
    monkeypatch.setattr(sys, "argv", argv)
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == 0
    assert ran[1][0].resolved == ran[0][0].resolved
    assert ran[1][1] != ran[0][1]
    assert (ran[1][1] / "config.yaml").read_text().splitlines()[2:] == (
        (ran[0][1] / "config.yaml").read_text().splitlines()[2:]
    )


def test_a_mistake_is_one_message_and_no_folder(
    command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("mode=run", "+data.cuont=4") == 1
    err = capsys.readouterr().err
    assert err == (
        "error: data.cuont: there is no such key\n"
        "  did you mean count? the keys of data are count, language\n"
    )
    assert list(Path("outputs/runs").rglob("*/*")) == []


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["data.cuont=4"], "error: data.cuont: there is no such key\n  did you mean count?"),
        (["dat=few"], "error: dat: there is no such key\n  did you mean data?"),
        (["data=fwe"], "error: data=fwe: there is no such option\n  did you mean few?"),
        (["modifier=[upper,revers]"], "error: modifier=revers: there is no such option"),
        (["~data.nothing"], "error: data.nothing: there is no such key"),
        (["data.count="], "error: data.count is '', which is not a whole number"),
        (["data.count=1,2"], "error: data.count=1,2 has several values for one run"),
        (["data.count=[1"], "error: 'data.count=[1' cannot be read"),
        (["+data.count=[1]"], "error: data.count is [1], which is not a whole number"),
        (["use.times=${nothing}"], "error: use.times refers to ${nothing}, which is not in"),
        (["hydra.searchpath=[file:///no/such/folder]"], "error: hydra.searchpath: "),
    ],
)
def test_what_cannot_be_composed_is_told_without_a_traceback(
    command: Command, capsys: pytest.CaptureFixture[str], words: list[str], told: str
) -> None:
    assert command(*words) == 1
    err = capsys.readouterr().err
    assert err.startswith(told)
    assert "Traceback" not in err


def test_all_keys_that_are_not_there_are_told_at_once(
    command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("data.cuont=4", "use.tims=3", "data.count=2") == 1
    err = capsys.readouterr().err
    assert err.count("error: ") == 2
    assert "did you mean count?" in err and "did you mean times?" in err


def test_a_missing_primary_config_is_told(
    command: Command, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["pipeline", "--config-name", "nothing"])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == 1
    assert capsys.readouterr().err.startswith("error: there is no config 'nothing'")


def test_a_failed_stage_says_how_to_go_on(
    command: Command, capsys: pytest.CaptureFixture[str], ran: list[tuple[Config, Path]]
) -> None:
    assert command("mode=run", "data.count=13") == 1
    err = capsys.readouterr().err
    assert err.startswith("error: thirteen cannot be made\n  take another\n")
    assert "this goes on from there" in err and "data.count=13" in err
    assert "thirteen" in (ran[0][1] / "run.log").read_text()


def test_an_interrupt_says_how_to_go_on(
    command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("mode=run", "data.count=14") == cli.INTERRUPTED == 130
    err = capsys.readouterr().err
    assert "stopped" in err and err.rstrip().endswith("mode=run data.count=14")


def test_a_crash_is_one_line_its_place_and_the_log(
    command: Command, capsys: pytest.CaptureFixture[str], ran: list[tuple[Config, Path]]
) -> None:
    assert command("mode=run", "data.count=15") == 1
    err = capsys.readouterr().err
    assert err.startswith("error: ZeroDivisionError in run (")
    assert "test_cli.py:" in err.splitlines()[0] and err.splitlines()[0].endswith("fifteen")
    assert str(ran[0][1] / "run.log") in err
    log = (ran[0][1] / "run.log").read_text()
    assert "Traceback" in log and "ZeroDivisionError: fifteen" in log


def test_a_sweep_goes_on_after_a_failed_job_and_leaves_with_1(
    command: Command, capsys: pytest.CaptureFixture[str], ran: list[tuple[Config, Path]]
) -> None:
    assert command("-m", "mode=run", "data.count=0,13,15,5", "sweep.skip_invalid=true") == 1
    assert [config.sections["data"]["count"] for config, _ in ran] == [13, 15, 5]
    folders = [folder for _, folder in ran]
    assert [folder.name for folder in folders] == ["1", "2", "3"]
    assert folders[0].parent.parent.parent == Path.cwd() / "outputs/sweeps"
    err = capsys.readouterr().err
    assert "job 0: error: data.count is 0" in err
    assert "job 1: error: thirteen cannot be made" in err
    assert "job 2: error: ZeroDivisionError" in err
    assert err.index("job 1") < err.index("job 3: mode=run data.count=5")


def test_a_sweep_in_which_all_is_well_leaves_with_0(
    command: Command, ran: list[tuple[Config, Path]]
) -> None:
    assert command("-m", "mode=run", "data.count=1,2") == 0
    assert len(ran) == 2


def test_an_interrupt_stops_a_sweep(
    command: Command, ran: list[tuple[Config, Path]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("-m", "mode=run", "data.count=14,5") == 130
    assert len(ran) == 1
    told = capsys.readouterr()
    lines = told.err.splitlines()
    assert lines[-3] == "stopped"
    assert lines[-2] == "what was finished is kept, and this goes on from there:"
    assert lines[-1].endswith("-m mode=run data.count=14,5")
    assert (told.out + told.err).count("goes on") == 1 and "the same command" not in told.out
    assert "job 0 was interrupted" in told.out and "job 1 is missing" in told.out


def test_the_exit_code_of_a_mode_is_the_commands(command: Command) -> None:
    assert command("mode=run", "data.count=16") == 1
    assert command("-m", "mode=run", "data.count=16,1") == 1


def test_the_other_modes_leave_no_run_folder(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    for mode in ("ls", "verify", "plan"):
        assert command(f"mode={mode}") == 0
    assert list(Path("outputs/runs").rglob("*/*")) == []


def test_an_unwritable_run_folder_is_told(
    command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("file").write_text("")
    assert command("mode=run", "hydra.run.dir=file/run") == 1
    err = capsys.readouterr().err
    assert err.startswith("error: ") and "hydra.run.dir=DIR" in err


def test_a_chosen_run_folder_is_used(command: Command, ran: list[tuple[Config, Path]]) -> None:
    assert command("mode=run", "hydra.run.dir=mine") == 0
    assert ran[0][1] == Path.cwd() / "mine"


def test_the_config_of_the_team_does_not_hide_its_error(
    command: Command, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRESSWORK_CONF", "/no/such/folder")
    assert command("mode=plan") == 1
    assert capsys.readouterr().err.startswith("error: PRESSWORK_CONF names /no/such/folder")


def test_modes_raise_user_errors_as_messages(
    command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("mode=gc") == 1
    assert capsys.readouterr().err.startswith("error: mode=gc is told nothing to free")
    assert issubclass(StageFailed, UserError)


def test_a_sweep_with_an_impossible_job_does_not_start(
    command: Command, capsys: pytest.CaptureFixture[str], ran: list[tuple[Config, Path]]
) -> None:
    assert command("-m", "mode=run", "data.count=5,0") == 1
    err = capsys.readouterr().err
    assert err.startswith("error: 1 of 2 jobs cannot run, so none was started:\n  job 1: data.co")
    assert ran == [] and not Path("outputs/sweeps").exists()
    assert command("-m", "mode=run", "data.count=5,0", "sweep.skip_invalid=true") == 1
    assert "warning: 1 of 2 jobs cannot run" in capsys.readouterr().err and len(ran) == 1
