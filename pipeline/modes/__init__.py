"""What `mode=` may say: one module here for each, with a function of the same name."""

from __future__ import annotations

import pkgutil

MODES = tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))
