"""Tables of inspections for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.markup import escape
from rich.table import Table

from pipeline.masking import printable

MOST_ROWS = 40
"""Rows of a table on the terminal; the page has them all."""


def facts_table(facts: Sequence[tuple[str, str]]) -> Table:
    """Names and values, without headings."""
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for name, value in facts:
        table.add_row(name, escape(printable(value)))
    return table


def rows_table(rows: Sequence[Mapping[str, str]], headings: Sequence[str]) -> Table:
    """The cells of `rows` under `headings`, the first ones only where there are many."""
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for position, heading in enumerate(headings):
        table.add_column(heading, justify="right" if position else "left", overflow="fold")
    for row in rows[:MOST_ROWS]:
        table.add_row(*(escape(printable(row[heading])) for heading in headings))
    if len(rows) > MOST_ROWS:
        table.add_row(f"and {len(rows) - MOST_ROWS} more, on the page")
    return table
