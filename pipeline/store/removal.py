"""Taking an entry out of the store in one step."""

from __future__ import annotations

import uuid
from pathlib import Path

from pipeline.store.layout import Layout
from pipeline.store.leases import Lease, leases
from pipeline.store.locks import registry
from pipeline.store.sweep import TRASH


def bury(layout: Layout, key: str) -> Path | None:
    """Take an entry out of the store in one step; its remains, to be removed, or None."""
    remains = layout.tmp / f"{TRASH}.{key[:12]}.{uuid.uuid4().hex}"
    try:
        layout.entry(key).rename(remains)
    except FileNotFoundError:
        return None
    layout.seal(key).unlink(missing_ok=True)
    return remains


def bury_unheld(layout: Layout, kind: str, key: str, own: Lease | None = None) -> Path | None:
    """The same, unless a lease other than `own` holds the key; None then too."""
    with registry(layout, kind):
        others = leases(layout)
        if own is not None:
            others.pop(own.token, None)
        if any(key in keys for keys in others.values()):
            return None
        return bury(layout, key)
