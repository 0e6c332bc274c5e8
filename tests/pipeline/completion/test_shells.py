"""The scripts in real shells: bash, and zsh and fish where they are installed.

The programs that they ask are stand-ins, which print candidates and note what they were asked.
"""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from pipeline.completion.scripts import script

STAND_IN = """#!/bin/sh
echo "${0##*/} $* <$COMP_LINE>" >> "$ASKED"
case "$COMP_LINE" in
  *scheme=w) printf 'scheme=w4a16\\nscheme=w8a8\\n' ;;
  *" sch") printf 'scheme=\\n' ;;
  *) printf 'mode=run\\n' ;;
esac
"""


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    for name in ("presswork", "python"):
        (tmp_path / name).write_text(STAND_IN)
        (tmp_path / name).chmod(0o755)
    for shell in ("bash", "zsh", "fish"):
        (tmp_path / f"{shell}.script").write_text(script(shell) or "")
        (tmp_path / f"{shell}.end").write_text(script(shell, uninstall=True) or "")
    path = f"{tmp_path}:{os.environ['PATH']}"
    return {"PATH": path, "HOME": str(tmp_path), "ASKED": str(tmp_path / "asked"), "TERM": "dumb"}


def asked(env: dict[str, str]) -> list[str]:
    path = Path(env["ASKED"])
    return path.read_text().splitlines() if path.exists() else []


def bash(env: dict[str, str], line: str) -> list[str]:
    """COMPREPLY at the end of a line, as bash's own completion would call the function."""
    code = f"""
_before() {{ COMPREPLY=(before); }}
complete -F _before python
source ~/bash.script; source ~/bash.script
COMP_LINE={line!r}; COMP_POINT=${{#COMP_LINE}}
read -ra COMP_WORDS <<< "$COMP_LINE"
[[ $COMP_LINE == *" " ]] && COMP_WORDS+=("")
COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 ))
_presswork "${{COMP_WORDS[0]}}" "${{COMP_WORDS[COMP_CWORD]}}"
printf '%s\\n' "${{COMPREPLY[@]}}"
source ~/bash.end; complete -p
"""
    done = subprocess.run(
        ["bash", "--norc", "-c", code], env=env, capture_output=True, text=True, check=True
    )
    assert "_presswork" not in done.stdout and "-F _before python" in done.stdout
    return done.stdout.partition("complete ")[0].split()


def test_bash(env: dict[str, str]) -> None:
    # bash itself splits words at =, so that what follows it is completed
    assert bash(env, "presswork scheme=w") == ["w4a16", "w8a8"]
    assert bash(env, "presswork mode=plan sch") == ["scheme="]
    assert bash(env, "python -m pipeline scheme=w") == ["w4a16", "w8a8"]
    assert bash(env, "~/presswork ") == ["mode=run"]
    assert asked(env) == [
        "presswork -sc query=bash <presswork scheme=w>",
        "presswork -sc query=bash <presswork mode=plan sch>",
        "python -m pipeline -sc query=bash <python -m pipeline scheme=w>",
        "presswork -sc query=bash <~/presswork >",
    ]


def test_bash_completes_other_uses_of_python_as_before(env: dict[str, str]) -> None:
    for line in ("python ", "python -m pip ", "python -m pipeline", "python script.py sch"):
        assert bash(env, line) == ["before"]
    assert asked(env) == []


@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not installed")
def test_fish(env: dict[str, str]) -> None:
    def fish(line: str) -> list[str]:
        code = f"source ~/fish.script; complete -C '{line}'"
        done = subprocess.run(
            ["fish", "--no-config", "-c", code], env=env, capture_output=True, text=True, check=True
        )
        return done.stdout.split()

    assert fish("presswork scheme=w") == ["scheme=w4a16", "scheme=w8a8"]
    assert fish("python -m pipeline scheme=w") == ["scheme=w4a16", "scheme=w8a8"]
    assert asked(env)[0] == "presswork -sc query=fish <presswork scheme=w>"
    assert asked(env)[-1].startswith("python -m pipeline -sc query=fish")
    before = len(asked(env))
    fish("python -m json.tool scheme=w")
    assert len(asked(env)) == before


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not installed")
def test_zsh(env: dict[str, str]) -> None:
    """In a terminal of its own: zsh's completion works in its line editor only."""

    def zsh(typed: str, shown: str) -> None:
        terminal, inner = pty.openpty()
        process = subprocess.Popen(
            ["zsh", "-f", "-i"], env=env, stdin=inner, stdout=inner, stderr=inner
        )
        try:
            os.write(terminal, b"PS1='> '; source ~/zsh.script; echo rea''dy\n")
            _until(terminal, "ready\r\n")
            os.write(terminal, f"{typed}\t".encode())
            _until(terminal, shown)
        finally:
            process.kill()
            process.wait()
            os.close(terminal)
            os.close(inner)

    zsh("presswork scheme=w", "w8a8")
    assert asked(env)[-1] == "presswork -sc query=zsh <presswork scheme=w>"
    zsh("python -m pipeline mode=plan sch", "eme=")
    assert asked(env)[-1].startswith("python -m pipeline -sc query=zsh <python -m pipeline mode")


def _until(terminal: int, text: str, seconds: float = 20.0) -> None:
    """Read what the terminal shows until the text is in it."""
    shown, end = "", time.monotonic() + seconds
    while text not in shown:
        ready, _, _ = select.select([terminal], [], [], max(0.0, end - time.monotonic()))
        assert ready, f"not shown within {seconds} s: {text}; shown: {shown!r}"
        shown += os.read(terminal, 4096).decode(errors="replace")
