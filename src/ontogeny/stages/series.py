"""`ontogeny series FILE.csv`: onsets, differences between models, and fluctuation, of anybody's checkpoints."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, get_args

from ontogeny.core.errors import OntogenyError
from ontogeny.records.files import replacing, write_json

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from ontogeny.params import TrajectoryParams
    from ontogeny.series import Emergence, External, Fluctuation

SIZES: Final = ("edges", "nodes", "size")
"""Metrics that count parts of a circuit: their question is fluctuation, not onset."""
_SEPARATORS: Final = {";": "semicolons", "\t": "tabs", "|": "bars"}
_LONGEST: Final = 40
"""Letters of a suite's name in a file's name."""
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
    """A CSV as it stands, every cell as text, blank lines as rows without a value.

    Raises:
        OntogenyError: it is not there, or no CSV with commas in UTF-8, or has fields that no column is named for.
    """
    import pandas as pd

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            header = list(pd.read_csv(file, nrows=0).columns)
            apart = next((name for sign, name in _SEPARATORS.items() if len(header) == 1 and sign in header[0]), None)
            if apart:
                raise OntogenyError(f"{file}: its columns are separated by {apart}; expected commas.")
            return pd.read_csv(
                file, dtype=str, index_col=False, skip_blank_lines=False, skipinitialspace=True, low_memory=False
            )
    except FileNotFoundError:
        raise OntogenyError(f"{file} does not exist: expected a CSV file.") from None
    except UnicodeDecodeError:
        raise OntogenyError(f"{file} is not UTF-8: expected CSV in that encoding, save it so.") from None
    except pd.errors.ParserWarning:
        raise OntogenyError(f"{file} has rows of more fields than its header: expected a name for each.") from None
    except (OSError, ValueError) as error:  # pandas' parser errors are ValueErrors
        what = str(error).strip()
        raise OntogenyError(f"{file} cannot be read as CSV ({what}): expected a header and one row a value.") from None


def write_findings(found: Findings, folder: Path) -> list[Path]:
    """The tables as CSV, all of them as series.json, and the pictures; what was written."""
    from ontogeny.figures.style import render

    written = []
    for name, table in found.tables.items():
        written.append(folder / f"{name}.csv")
        with replacing(written[-1]) as temporary:
            table.to_csv(temporary, index=False)
    written.append(folder / "series.json")
    rows_of = {name: [_plain(row) for row in table.to_dict("records")] for name, table in found.tables.items()}
    write_json(written[-1], rows_of | {"counts": dict(found.read.counts), "notes": list(found.read.notes)})
    for name, rows, draw in _pictures(found):
        figure = draw(rows)
        for kind in ("png", "svg"):
            written.append(folder / f"{name}.{kind}")
            with replacing(written[-1]) as temporary:
                temporary.write_bytes(render(figure, kind, _DPI))
    return written


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
    for suite, file in file_names(table["suite"].unique()).items():
        mine = [each for each in found.abilities if each.who["suite"] == suite]
        sizes = [each for each in found.sizes if each.who["suite"] == suite]
        here = table[table["suite"] == suite]
        if mine:
            pictures.append((f"series-{file}", series_rows(here, mine), draw_series))
            pictures.append((f"onsets-{file}", onset_rows(mine), draw_onsets))
        if sizes:
            counted = here[here["quantity"].isin({each.who["quantity"] for each in sizes})]
            pictures.append((f"sizes-{file}", size_change_rows(counted, sizes), draw_size_changes))
    return pictures


def file_names(suites: Iterable[str]) -> dict[str, str]:
    """What files of each suite are called: its letters, digits and `._-`, and a number where two would be alike."""
    names: dict[str, str] = {}
    for suite in suites:
        bare = re.sub(r"[^\w.]+", "-", suite)[:_LONGEST].strip(".-") or "models"
        taken = {name.casefold() for name in names.values()}
        tried = (bare if number == 1 else f"{bare}-{number}" for number in count(1))
        names[suite] = next(name for name in tried if name.casefold() not in taken)
    return names


def _plain(row: Mapping[Any, Any]) -> dict[str, Any]:
    return {str(name): plain(cell) for name, cell in row.items()}


def plain(cell: Any) -> Any:
    """A cell as a value of JSON: None where it is missing or not finite."""
    import pandas as pd

    if cell is None or pd.isna(cell):
        return None
    if hasattr(cell, "item"):
        cell = cell.item()
    return cell if not isinstance(cell, float) or math.isfinite(cell) else None
