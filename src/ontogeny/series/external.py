"""A tidy table from anybody's CSV of checkpoints (columns model, step, tokens, task, metric, value, stderr)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Final

import numpy as np
import pandas as pd

from ontogeny.core.errors import OntogenyError
from ontogeny.series.table import COLUMNS, as_table

NEEDED: Final = ("model", "step", "task", "metric", "value")
OPTIONAL: Final = ("tokens", "stderr", "status", "suite", "scale", "seed", "parameters")
_NUMERIC: Final = ("step", "tokens", "stderr", "seed", "parameters")
WORDS: Final = ("found", "threshold_unmet", "not_learned", "trivial", "nan", "failed")
"""Statuses: a value may be one of these words in place of a number."""
PYTHIA_TOKENS_PER_STEP: Final = 2_097_152
CONFIDENCE: Final = 0.95
"""Of the intervals that standard errors are turned into."""

_SIZE: Final = re.compile(r"(?<![0-9a-z.])(?P<number>\d+(?:\.\d+)?)(?P<unit>[kmb])(?![0-9a-z])", re.IGNORECASE)
_SEED: Final = re.compile(r"-?(?:seed|s)(?P<seed>\d+)$", re.IGNORECASE)
_PRECISION: Final = re.compile(r"-(?:bf16|fp16|fp32)\b", re.IGNORECASE)
_UNITS: Final = {"k": 1e3, "m": 1e6, "b": 1e9}


@dataclass(frozen=True)
class External:
    """A table that was read, and what was done to it."""

    table: pd.DataFrame
    """Tidy, with the columns of `series.COLUMNS`."""
    counts: Mapping[str, int]
    """Rows read, rows that repeat a checkpoint, values that are missing, and each status that is no number."""
    notes: tuple[str, ...] = field(default=())
    """What a reader should know: columns that were not used, where tokens come from."""


@dataclass(frozen=True)
class ModelName:
    """What a model's name says."""

    suite: str
    """The name without size, seed and precision: models of one suite are compared across scale."""
    scale: str
    seed: int
    parameters: int | None


def read_name(model: str) -> ModelName:
    """``pythia-1.4b-deduped`` -> suite ``pythia-deduped``, scale ``1.4b``, seed 0, 1.4e9 parameters (nominal)."""
    bare = _PRECISION.sub("", model)
    seed = _SEED.search(bare)
    bare = bare[: seed.start()] if seed else bare
    size = _SIZE.search(bare)
    if size is None:
        return ModelName("models", bare, int(seed["seed"]) if seed else 0, None)
    suite = re.sub(r"-{2,}", "-", bare[: size.start()] + bare[size.end() :]).strip("-_ ")
    parameters = round(float(size["number"]) * _UNITS[size["unit"].lower()])
    return ModelName(suite or "models", size[0].lower(), int(seed["seed"]) if seed else 0, parameters)


def external_table(
    frame: pd.DataFrame,
    *,
    columns: Mapping[str, str] | None = None,
    constants: Mapping[str, str] | None = None,
    tokens_per_step: float | None = None,
) -> External:
    """Turn the columns of a CSV into the tidy table that all of `series` works on.

    Rows that repeat a model, task, metric and step are averaged, and counted. Tokens are step × `tokens_per_step`
    where there is no such column; models named pythia have 2,097,152 of them a step.

    Args:
        frame: the CSV; text is welcome, numbers are checked here.
        columns: our name -> theirs.
        constants: our name -> a value for all rows.
        tokens_per_step: tokens of one training step.

    Raises:
        OntogenyError: a column is missing or unknown, or a cell is not what its column needs; says which.
    """
    rows, unused = _renamed(frame, dict(columns or {}), dict(constants or {}))
    numbers = {
        name: _numbers(rows, name) for name in ("step", "tokens", "stderr", "seed", "parameters") if name in rows
    }
    values, status = _values(rows)
    step = _whole(numbers["step"], "step")
    for name in ("model", "task", "metric"):
        _refuse(rows[name].isna(), f"column {name} is empty", "a name")
    notes = [f"columns not used: {', '.join(unused)}"] if unused else []
    tokens, source = _tokens(numbers.get("tokens"), step, rows["model"], tokens_per_step)
    stderr = numbers.get("stderr", pd.Series(np.nan, rows.index))
    _refuse(stderr < 0, "a standard error is negative", "a number that is not negative, or nothing")
    names = {model: read_name(model) for model in rows["model"].astype(str).unique()}
    said = [names[str(model)] for model in rows["model"]]
    half = NormalDist().inv_cdf(0.5 + CONFIDENCE / 2) * stderr
    tidy = pd.DataFrame(
        {
            "suite": rows["suite"] if "suite" in rows else [name.suite for name in said],
            "member": rows["model"].astype(str),
            "scale": rows["scale"] if "scale" in rows else [name.scale for name in said],
            "seed": _whole(numbers["seed"], "seed") if "seed" in numbers else [name.seed for name in said],
            "parameters": numbers["parameters"].round()
            if "parameters" in numbers
            else pd.array([name.parameters for name in said], dtype="Int64"),
            "step": step,
            "tokens": tokens,
            "task": rows["task"].astype(str),
            "quantity": rows["metric"].astype(str),
            "value": values,
            "low": values - half,
            "high": values + half,
            "status": status,
            "duplicate_of": pd.array([None] * len(rows), dtype="Int64"),
            "part": "",
        }
    )
    once = _once(tidy)
    counts = {"rows": len(rows), "repeated": len(tidy) - len(once), "missing": int(once["value"].isna().sum())}
    counts |= {word: int((once["status"] == word).sum()) for word in WORDS if (once["status"] == word).any()}
    return External(as_table(list(once[list(COLUMNS)].itertuples(index=False, name=None))), counts, (*notes, *source))


# --- Columns --------------------------------------------------------------------------------------------------------


def _renamed(
    frame: pd.DataFrame, columns: dict[str, str], constants: dict[str, str]
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """The columns that we know under our names, and the names of the others."""
    known = (*NEEDED, *OPTIONAL)
    for name in (*columns, *constants):
        if name not in known:
            raise OntogenyError(f"{name!r} is none of our columns: use {', '.join(known)}.")
    for name, theirs in columns.items():
        if theirs not in frame:
            raise OntogenyError(f"{name}={theirs}: there is no column {theirs!r}; the file has {_listed(frame)}.")
    twice = [name for name in constants if name in columns or name in frame]
    if twice:
        raise OntogenyError(
            f"{twice[0]!r} is set to one value, but the file has a column for it: leave one of them out."
        )
    sources = {name: columns.get(name, name) for name in known if columns.get(name, name) in frame}
    rows = pd.DataFrame({name: frame[theirs] for name, theirs in sources.items()})
    rows = rows.assign(**constants)
    missing = [name for name in NEEDED if name not in rows]
    if missing:
        raise OntogenyError(
            f"No column {', '.join(missing)}: the file has {_listed(frame)}. Expected {', '.join(NEEDED)}, and tokens "
            f"and stderr if known. Rename with --map {missing[0]}=THEIRS, or give one value for all rows with "
            f"--set {missing[0]}=VALUE."
        )
    if rows.empty:
        raise OntogenyError("The file has no rows: expected one row a model, step, task and metric.")
    return rows, tuple(name for name in map(str, frame.columns) if name not in sources.values())


def _listed(frame: pd.DataFrame) -> str:
    return ", ".join(map(str, frame.columns)) or "none"


def _refuse(wrong: pd.Series, what: str, expected: str) -> None:
    """Raise for the first row in which something is wrong; line 1 of the file is its header."""
    if wrong.any():
        line = int(np.flatnonzero(wrong.to_numpy())[0]) + 2
        others = int(wrong.sum()) - 1
        more = f" ({others} more rows like it)" if others else ""
        raise OntogenyError(f"Line {line}: {what}{more}; expected {expected}.")


def _numbers(rows: pd.DataFrame, name: str) -> pd.Series:
    """A column of numbers; empty cells are NaN."""
    given = rows[name]
    numbers = pd.to_numeric(given, errors="coerce").astype(float)
    _refuse(numbers.isna() & given.notna(), f"column {name} holds text", "a number")
    return numbers


def _whole(numbers: pd.Series, name: str) -> pd.Series:
    good = np.isfinite(numbers) & (numbers >= 0) & (numbers == numbers.round())
    _refuse(~good, f"column {name} holds no whole number", "0, 1, 2, ...")
    return numbers.astype("int64")


def _values(rows: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
    """Values, NaN where there is none, and a status that says why."""
    given = rows["value"]
    word = given.astype(str).str.strip().str.lower()
    values = pd.to_numeric(given, errors="coerce").astype(float)
    text = values.isna() & given.notna()
    _refuse(text & ~word.isin(WORDS), "column value holds text", f"a number, nothing, or one of {', '.join(WORDS)}")
    values = values.where(np.isfinite(values))
    stated = rows["status"].astype(str) if "status" in rows else pd.Series("measured", rows.index)
    status = stated.where(values.notna() | ("status" in rows), "nan").mask(text, word)
    return values, status


def _tokens(
    given: pd.Series | None, step: pd.Series, model: pd.Series, tokens_per_step: float | None
) -> tuple[pd.Series, tuple[str, ...]]:
    """Tokens of each row, and a note where they were worked out."""
    if given is not None and tokens_per_step is None:
        return _whole(given, "tokens"), ()
    if tokens_per_step is None:
        if not model.astype(str).str.contains("pythia", case=False).all():
            raise OntogenyError(
                "No column tokens: expected the training tokens of each step. Rename with --map tokens=THEIRS, or give "
                "--tokens-per-step."
            )
        tokens_per_step = PYTHIA_TOKENS_PER_STEP
    if not tokens_per_step > 0:
        raise OntogenyError(f"--tokens-per-step is {tokens_per_step:g}: expected a number above 0.")
    return (step * tokens_per_step).round().astype("int64"), (f"tokens = step × {tokens_per_step:,.0f}",)


def _once(tidy: pd.DataFrame) -> pd.DataFrame:
    """One row a series and step: the mean of those that repeat it."""
    keys = ["suite", "member", "scale", "seed", "task", "quantity", "step"]
    if not tidy.duplicated(keys).any():
        return tidy
    means = tidy.groupby(keys, sort=False)[["value", "low", "high"]].transform("mean")
    return tidy.assign(value=means["value"], low=means["low"], high=means["high"]).drop_duplicates(keys)
