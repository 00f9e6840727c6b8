"""What `ontogeny series` found, as tables for a terminal of any width."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ontogeny.stages.series import Findings, plain

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

Row = Mapping[Any, Any]
_WHY: Final = "interval, or why none"
_WORDS: Final = ("model", "suite", "task", "metric", "onset", "dip", "end", _WHY, "no larger scale is earlier than")
_SPARE: Final = ("dip", "plateau", "end", "used", "jitter", "mean", "median", "tokens")
"""Columns that a narrow terminal does without, in this order; the CSV files have them all."""


def print_findings(found: Findings, written: Sequence[Path], width: int | None = None) -> None:
    """Counts, notes, a table of each kind, and what was written; `width` in letters, default the terminal's, or 200."""
    from rich.console import Console

    width = width if width or sys.stdout.isatty() else 200
    console = Console(width=width, markup=False, emoji=False, highlight=False)  # names are shown as they are
    counts = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in found.read.counts.items())
    console.print(f"{counts}, {len(found.abilities) + len(found.sizes):,} series")
    for note in found.read.notes:
        console.print(note)
    for name, (title, cells) in _TABLES.items():
        if name in found.tables:
            rows = [cells(row) for row in found.tables[name].to_dict("records")]
            for part in _fitted(console, title, rows, f"{name}.csv"):
                console.print(part)
    if written:
        names = ", ".join(sorted(path.name for path in written if path.suffix != ".svg"))
        console.print(f"In {written[0].parent}/: {names}")


def _fitted(console: Console, title: str, rows: Sequence[Mapping[str, str]], file: str) -> Iterator[Table | str]:
    """The table, without as many of the spare columns as the console is too narrow for, and a line that names them."""
    names, spare = list(rows[0]), [name for name in _SPARE if name in rows[0]]
    gone: list[str] = []
    table, endless = _rich(title, names, rows), console.options.update(width=10_000)
    while spare and console.measure(table, options=endless).maximum > console.width:
        gone.append(spare.pop(0))
        names.remove(gone[-1])
        table = _rich(title, names, rows)
    yield table
    if gone:
        yield f"Not shown, for want of width: {', '.join(gone)} (all are in {file}).\n"


def _rich(title: str, names: Sequence[str], rows: Sequence[Mapping[str, str]]) -> Table:
    """Numbers are never broken over lines; words are."""
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in names:
        words = name in _WORDS
        table.add_column(
            name, justify="left" if words else "right", no_wrap=not words, overflow="fold",
            max_width=34 if name == _WHY else None,
        )  # fmt: skip
    for row in rows:
        table.add_row(*(row[name] for name in names))
    return table


# --- Rows -----------------------------------------------------------------------------------------------------------


def _onset(row: Row) -> dict[str, str]:
    return _series(row) | {
        "onset": row["status"],
        "step": _whole(row["step"]),
        "median": _tokens(row["onset_tokens"]),
        _WHY: _why(row),
        "plateau": _number(row["plateau"]) + (" rising" if row["plateau_status"] == "still rising" else ""),
        "dip": "" if plain(row["dips"]) is None else "yes" if row["dips"] else "no",
        "end": plain(row["ending"]) or "",
        "used": _used(row),
    }


def _why(row: Row) -> str:
    """The interval, and whether the rule's checkpoint lies elsewhere; without an onset the reason."""
    if row["checkpoints"] == 1:
        return "a single checkpoint shows no onset, nor that there is none"
    if plain(row["onset_low"]) is None:
        return str(plain(row["reason"]) or "-")
    apart = plain(row["agrees"]) is False
    return _between(row["onset_low"], row["onset_high"], _tokens) + (", apart from the rule's step" if apart else "")


def _trend(row: Row) -> dict[str, str]:
    return {
        "suite": row["suite"],
        "task": row["task"],
        "metric": row["quantity"],
        "scales": _whole(row["scales"]),
        "with onset": _whole(row["with_onset"]),
        "slope": _number(row["slope"]),
        "interval": _between(row["slope_low"], row["slope_high"], _number),
        "no larger scale is earlier than": plain(row["stops_at"]) or str(row["status"]),
    }


def _fluctuation(row: Row) -> dict[str, str]:
    return _series(row) | {
        "mean": _number(row["mean"]),
        "variation": _number(row["variation"]),
        _WHY: _between(row["low"], row["high"], _number) if row["status"] == "measured" else row["status"],
        "jitter": _number(row["jitter"]),
        "change points": _whole(row["change_points"]),
        "used": _used(row),
    }


def _change(row: Row) -> dict[str, str]:
    return _series(row) | {
        "step": _whole(row["step"]),
        "tokens": _tokens(row["tokens"]),
        "interval": _between(row["low"], row["high"], _tokens),
        "before": _number(row["before"]),
        "after": _number(row["after"]),
    }


_TABLES: Final[Mapping[str, tuple[str, Callable[[Row], dict[str, str]]]]] = {
    "onsets": ("Onsets (tokens; interval at the params' confidence)", _onset),
    "trend": ("Onset against size (slope: octaves of tokens an octave of parameters)", _trend),
    "fluctuation": (
        "Fluctuation (standard deviation over mean; jitter: from neighbouring checkpoints alone)", _fluctuation
    ),
    "changes": ("Change points (first checkpoint of a new level)", _change),
}  # fmt: skip


def _series(row: Row) -> dict[str, str]:
    return {"model": row["member"], "task": row["task"], "metric": row["quantity"]}


def _used(row: Row) -> str:
    """Checkpoints, and of how many where some were left out."""
    used, left_out = int(row["checkpoints"]), int(row["left_out"])
    return f"{used:,} of {used + left_out:,}" if left_out else f"{used:,}"


def _number(value: Any) -> str:
    return "-" if plain(value) is None else f"{value:.3g}"


def _whole(value: Any) -> str:
    return "-" if plain(value) is None else f"{int(value):,}"


def _tokens(value: Any) -> str:
    return "-" if plain(value) is None else f"{value:.2e}"


def _between(low: Any, high: Any, shown: Callable[[Any], str]) -> str:
    return "-" if plain(low) is None else f"{shown(low)} to {shown(high)}"
