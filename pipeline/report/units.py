"""Human-readable sizes, durations, numbers, percentages and paths."""

from __future__ import annotations

from pathlib import Path

MISSING = "-"


def size(count: float | None) -> str:
    """Bytes: 1536 -> '1.5 kB' (powers of 1000)."""
    if count is None:
        return MISSING
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def duration(seconds: float | None) -> str:
    """Seconds: 0.42 -> '0.42 s', 75 -> '1 min 15 s', 7260 -> '2 h 01 min', 3e5 -> '3 d 11 h'."""
    if seconds is None:
        return MISSING
    if seconds < 10:
        return f"{seconds:.2f} s"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours = minutes // 60
    return f"{hours} h {minutes % 60:02d} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def number(value: float | None, digits: int = 4) -> str:
    """A number with so many significant digits; a dash for None."""
    return MISSING if value is None else f"{value:.{digits}g}"


def percent(value: float | None, digits: int = 1) -> str:
    """A fraction as a percentage: 0.934 -> '93.4 %'."""
    return MISSING if value is None else f"{100 * value:.{digits}f} %"


def change(before: float | None, after: float | None) -> str:
    """Relative change of a number: (25.6, 27.8) -> '+8.6 %'."""
    if not before or after is None:
        return MISSING
    return f"{100 * (after / before - 1):+.1f} %"


def counted(count: int, thing: str) -> str:
    """A number with its noun: (1, 'job') -> '1 job', (0, 'job') -> '0 jobs'."""
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"


def nearby(path: Path) -> str:
    """A path relative to the current folder, if it is below it."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
