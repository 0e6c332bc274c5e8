"""Modes of the command line: one module for each `mode=NAME`, with a function of that name."""

from __future__ import annotations

import pkgutil

MODES = tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))
