"""Digests and keys that are kept in JSON files beside the tests, a section at a time.

A test that is run with PRESSWORK_WRITE_KEYS=1 writes its section anew instead of comparing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

WRITE = "PRESSWORK_WRITE_KEYS"


def stored(file: Path, section: str, found: Mapping[str, Any]) -> Any:
    """What `file` has under `section`; asked to write, that is `found` from now on."""
    whole = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    if os.environ.get(WRITE) == "1":
        whole[section] = found
        text = json.dumps(dict(sorted(whole.items())), indent=0, ensure_ascii=False)
        file.write_text(text + "\n", encoding="utf-8")
    return whole.get(section)


def differing(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Names whose values are not the same, in the order of `now`; those that are gone last."""
    changed = [name for name, value in now.items() if before.get(name) != value]
    return [*changed, *(name for name in before if name not in now)]
