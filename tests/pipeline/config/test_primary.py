"""The command line: options may stand anywhere among the overrides."""

from __future__ import annotations

import pytest

from pipeline.config.primary import gathered


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["a=1,2", "-m"], ["-m", "a=1,2"]),
        (["a=1", "--config-dir", "x", "b=2"], ["--config-dir", "x", "a=1", "b=2"]),
        (["a=1", "--cfg", "job", "~b", "--resolve"], ["--cfg", "job", "--resolve", "a=1", "~b"]),
        (["--config-name=c", "a=1", "a=1"], ["--config-name=c", "a=1", "a=1"]),
        ([], []),
    ],
)
def test_overrides_follow_the_options_in_their_order(given: list[str], expected: list[str]) -> None:
    assert gathered(given) == expected


def test_an_unknown_option_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        gathered(["a=1", "--confg-dir", "x"])
    assert "--confg-dir" in capsys.readouterr().err
