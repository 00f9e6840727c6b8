"""`ontogeny series FILE.csv`: onsets, differences between models, and fluctuation, of anybody's checkpoints."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, get_args

from ontogeny.core.errors import OntogenyError
from ontogeny.records.files import replacing, write_json

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from rich.console import Console
    from rich.table import Table

    from ontogeny.params import TrajectoryParams
    from ontogeny.series import Emergence, External, Fluctuation

SIZES: Final = ("edges", "nodes", "size")
"""Metrics that count parts of a circuit: their question is fluctuation, not onset."""
_DPI: Final = 130


@dataclass(frozen=True)
class Findings:
    """What was found in a file."""

    read: External
    abilities: list[Emergence]
    sizes: list[Fluctuation]
    tables: Mapping[str, pd.DataFrame]
    """By file name: onsets, differences, trend, fluctuation, changes; those that have rows."""


def parse_pairs(texts: Sequence[str], option: str) -> dict[str, str]:
    """``["a=b,c=d", "e=f"]`` -> names and values.

    Raises:
        OntogenyError: a part has no ``=``, or a name is given twice.
    """
    pairs: dict[str, str] = {}
    for part in (part for text in texts for part in text.split(",") if part.strip()):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not (name and equals and value):
            raise OntogenyError(f"{option} {part!r}: expected NAME=VALUE, several of them with commas between.")
        if name in pairs:
            raise OntogenyError(f"{option}: {name!r} is given twice.")
        pairs[name] = value
    return pairs


def rule_params(rule: str) -> TrajectoryParams:
    """The default settings with an onset rule.

    Raises:
        OntogenyError: there is no such rule.
    """
    from ontogeny.params import TrajectoryParams

    rules = get_args(TrajectoryParams.model_fields["onset_rule"].annotation)
    if rule not in rules:
        raise OntogenyError(f"--rule {rule!r}: expected {' or '.join(rules)}.")
    return TrajectoryParams.model_validate({"onset_rule": rule})


def examine(
    file: Path,
    params: TrajectoryParams,
    *,
    columns: Mapping[str, str],
    constants: Mapping[str, str],
    tokens_per_step: float | None = None,
    chance: float = 0.0,
    sizes: Sequence[str] = SIZES,
) -> Findings:
    """Read a CSV and work out everything; nothing is written."""
    from ontogeny.series import (
        change_table,
        emergence_table,
        emergences,
        external_table,
        fluctuation_table,
        fluctuations,
        onset_differences,
        onset_trend,
    )
    from ontogeny.series.external import CONFIDENCE

    read = external_table(read_csv(file), columns=columns, constants=constants, tokens_per_step=tokens_per_step)
    is_size = read.table["quantity"].isin(sizes)
    abilities = emergences(read.table[~is_size], params, confidence=CONFIDENCE, chance=chance)
    counted = fluctuations(read.table[is_size], params, since=_starts(abilities))
    tables = {
        "onsets": emergence_table(abilities),
        "differences": onset_differences(abilities, params),
        "trend": onset_trend(abilities, params),
        "fluctuation": fluctuation_table(counted),
        "changes": change_table(counted),
    }
    return Findings(read, abilities, counted, {name: table for name, table in tables.items() if len(table)})


def read_csv(file: Path) -> pd.DataFrame:
    """A CSV as it stands.

    Raises:
        OntogenyError: it is not there, or no CSV.
    """
    import pandas as pd

    try:
        return pd.read_csv(file)
    except FileNotFoundError:
        raise OntogenyError(f"{file} does not exist: expected a CSV file.") from None
    except (OSError, ValueError) as error:  # pandas' parser errors and undecodable bytes are ValueErrors
        raise OntogenyError(f"{file} cannot be read as CSV ({error}): expected a header and one row a value.") from None


def write_findings(found: Findings, folder: Path) -> list[Path]:
    """The tables as CSV, all of them as series.json, and the pictures; what was written."""
    from ontogeny.figures.style import render

    written = []
    for name, table in found.tables.items():
        written.append(folder / f"{name}.csv")
        with replacing(written[-1]) as temporary:
            table.to_csv(temporary, index=False)
    written.append(folder / "series.json")
    plain = {name: [_plain(row) for row in table.to_dict("records")] for name, table in found.tables.items()}
    write_json(written[-1], plain | {"counts": dict(found.read.counts), "notes": list(found.read.notes)})
    for name, rows, draw in _pictures(found):
        figure = draw(rows)
        for kind in ("png", "svg"):
            written.append(folder / f"{name}.{kind}")
            with replacing(written[-1]) as temporary:
                temporary.write_bytes(render(figure, kind, _DPI))
    return written


def print_findings(found: Findings, written: Sequence[Path]) -> None:
    """Tables on the terminal."""
    from rich.console import Console

    console = Console() if sys.stdout.isatty() else Console(width=150)
    counts = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in found.read.counts.items())
    console.print(f"{counts}, {len(found.abilities) + len(found.sizes):,} series", highlight=False)
    for note in found.read.notes:
        console.print(note, highlight=False)
    for name, make in _TABLES.items():
        if name in found.tables:
            console.print(make(found.tables[name]))
    _print_where(console, written)


# --- Pictures and cells ---------------------------------------------------------------------------------------------


def _starts(abilities: Sequence[Emergence]) -> dict[tuple[str, str], float]:
    """(model, task) -> tokens of the first onset of an ability; sizes before it are left out."""
    starts: dict[tuple[str, str], float] = {}
    for each in abilities:
        if each.onset.tokens is not None:
            key = (str(each.who["member"]), str(each.who["task"]))
            starts[key] = min(float(each.onset.tokens), starts.get(key, math.inf))
    return starts


def _pictures(found: Findings) -> list[tuple[str, pd.DataFrame, Callable[[pd.DataFrame], Figure]]]:
    """Name, rows and drawing of each picture: a set for each suite."""
    from ontogeny.figures.onset import (
        draw_onsets,
        draw_series,
        draw_size_changes,
        onset_rows,
        series_rows,
        size_change_rows,
    )

    pictures: list[tuple[str, pd.DataFrame, Callable[[pd.DataFrame], Figure]]] = []
    table = found.read.table
    for suite in dict.fromkeys(table["suite"]):
        mine = [each for each in found.abilities if each.who["suite"] == suite]
        sizes = [each for each in found.sizes if each.who["suite"] == suite]
        here = table[table["suite"] == suite]
        if mine:
            pictures.append((f"series-{suite}", series_rows(here, mine), draw_series))
            pictures.append((f"onsets-{suite}", onset_rows(mine), draw_onsets))
        if sizes:
            counted = here[here["quantity"].isin({each.who["quantity"] for each in sizes})]
            pictures.append((f"sizes-{suite}", size_change_rows(counted, sizes), draw_size_changes))
    return pictures


def _plain(row: Mapping[Any, Any]) -> dict[str, Any]:
    """JSON values: what is missing or not finite is null."""
    return {str(name): _value(cell) for name, cell in row.items()}


def _value(cell: Any) -> Any:
    import pandas as pd

    if cell is None or pd.isna(cell):
        return None
    if hasattr(cell, "item"):
        cell = cell.item()
    return cell if not isinstance(cell, float) or math.isfinite(cell) else None


def _onset_table(table: pd.DataFrame) -> Table:
    return _rich(
        "Onsets (tokens; interval at the params' confidence)",
        ("model", "task", "metric", "onset", "step", "median", "interval", "plateau", "dip", "end", "used", "left out"),
        [
            (
                row["member"], row["task"], row["quantity"], row["status"], _whole(row["step"]),
                _tokens(row["onset_tokens"]), _between(row["onset_low"], row["onset_high"]),
                _number(row["plateau"]) + (" rising" if row["plateau_status"] == "still rising" else ""),
                "" if _value(row["dips"]) is None else "yes" if row["dips"] else "no",
                _value(row["ending"]) or "", _whole(row["checkpoints"]), _whole(row["left_out"]),
            )
            for row in table.to_dict("records")
        ],
    )  # fmt: skip


def _trend_table(table: pd.DataFrame) -> Table:
    return _rich(
        "Onset against size (slope: octaves of tokens an octave of parameters)",
        ("suite", "task", "metric", "scales", "with onset", "slope", "interval", "no larger scale is earlier than"),
        [
            (
                row["suite"], row["task"], row["quantity"], _whole(row["scales"]), _whole(row["with_onset"]),
                _number(row["slope"]), f"{_number(row['slope_low'])} to {_number(row['slope_high'])}",
                _value(row["stops_at"]) or str(row["status"]),
            )
            for row in table.to_dict("records")
        ],
    )  # fmt: skip


def _fluctuation_table(table: pd.DataFrame) -> Table:
    return _rich(
        "Fluctuation (standard deviation over mean; jitter: from neighbouring checkpoints alone)",
        ("model", "task", "metric", "mean", "variation", "interval", "jitter", "change points", "used", "left out"),
        [
            (
                row["member"], row["task"], row["quantity"], _number(row["mean"]), _number(row["variation"]),
                f"{_number(row['low'])} to {_number(row['high'])}", _number(row["jitter"]),
                _whole(row["change_points"]), _whole(row["checkpoints"]), _whole(row["left_out"]),
            )
            for row in table.to_dict("records")
        ],
    )  # fmt: skip


def _change_table(table: pd.DataFrame) -> Table:
    return _rich(
        "Change points (first checkpoint of a new level)",
        ("model", "task", "metric", "step", "tokens", "interval", "before", "after"),
        [
            (
                row["member"], row["task"], row["quantity"], _whole(row["step"]), _tokens(row["tokens"]),
                _between(row["low"], row["high"]), _number(row["before"]), _number(row["after"]),
            )
            for row in table.to_dict("records")
        ],
    )  # fmt: skip


_TABLES: Final[Mapping[str, Callable[[pd.DataFrame], Table]]] = {
    "onsets": _onset_table,
    "trend": _trend_table,
    "fluctuation": _fluctuation_table,
    "changes": _change_table,
}


def _rich(title: str, names: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in names:
        words = name in ("model", "suite", "task", "metric", "onset", "end", "dip", "no larger scale is earlier than")
        table.add_column(name, justify="left" if words else "right")
    for row in rows:
        table.add_row(*row)
    return table


def _print_where(console: Console, written: Sequence[Path]) -> None:
    if written:
        names = ", ".join(sorted(path.name for path in written if path.suffix != ".svg"))
        console.print(f"In {written[0].parent}/: {names}", highlight=False)


def _number(value: Any) -> str:
    return "-" if _value(value) is None else f"{value:.3g}"


def _whole(value: Any) -> str:
    return "-" if _value(value) is None else f"{int(value):,}"


def _tokens(value: Any) -> str:
    return "-" if _value(value) is None else f"{value:.2e}"


def _between(low: Any, high: Any) -> str:
    return "-" if _value(low) is None else f"{_tokens(low)} to {_tokens(high)}"
