"""Tables and numbers on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

if TYPE_CHECKING:
    from rich.table import Table


_WORDS = ("member", "task", "probe", "phase", "status", "role", "best", "metric of IOI")


def number(value: Any) -> str:
    """Two decimals; a dash where there is no number."""
    return "-" if pd.isna(value) else f"{value:.2f}"


def whole(value: Any) -> str:
    """A whole number; a dash where there is none."""
    return "-" if pd.isna(value) else f"{int(value):,}"


def percent(share: Any) -> str:
    """A share in per cent."""
    return "-" if pd.isna(share) else f"{100 * share:.1f} %"


def short_onset(onset: str) -> str:
    """`never`, `first` (it was there at the first checkpoint), or a dash."""
    return {"before the first checkpoint": "first", "": "-"}.get(onset, onset)


def new_table(title: str, *columns: str, narrow: bool = False) -> Table:
    """An empty table; columns of words are on the left, those of numbers on the right."""
    from rich import box
    from rich.table import Table

    style = box.SIMPLE_HEAD if not narrow else None
    padding = (0, 1, 0, 0) if narrow else (0, 1)
    table = Table(title=title, title_justify="left", box=style, title_style="bold", pad_edge=False, padding=padding)
    for name in columns:
        words = name in _WORDS
        table.add_column(name, justify="left" if words else "right", no_wrap=narrow)
    return table


def plain(cell: Any) -> str:
    """A text without rich's marks."""
    from rich.text import Text

    return Text.from_markup(str(cell)).plain


def markdown(table: Table) -> str:
    """The same table for a Markdown file, without its title."""
    columns = [[str(column.header), *map(plain, column.cells)] for column in table.columns]
    marks = [":--" if column.justify == "left" else "--:" for column in table.columns]
    head, *rows = ([cell.replace("|", "\\|") for cell in row] for row in zip(*columns))
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, marks, *rows))
