"""A tidy table from anybody's CSV of checkpoints (columns model, step, tokens, task, metric, value, stderr)."""

from __future__ import annotations

import math
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
_NAMES: Final = ("model", "task", "metric", "suite", "scale")
_NUMERIC: Final = ("step", "tokens", "stderr", "seed", "parameters")
LEFT_OUT: Final = ("threshold_unmet", "not_learned", "trivial", "nan", "failed")
"""Statuses of rows whose value is not used; a value may be one of these words in place of a number."""
_USED: Final = ("measured", "found")
PYTHIA_TOKENS_PER_STEP: Final = 2_097_152
CONFIDENCE: Final = 0.95
"""Of the intervals that standard errors are turned into."""

_REPEATED: Final = ["suite", "member", "scale", "seed", "task", "quantity", "step"]
"""Rows that are alike in these are of one checkpoint, and averaged."""
_LARGEST: Final = 1e100
"""Of values and standard errors: sums of their squares stay finite."""
_TOO_LARGE: Final = 2.0**63
"""Of whole numbers: the first that has no place in an int64."""

_SIZE: Final = re.compile(r"(?<![0-9a-z.])(?P<number>\d+(?:\.\d+)?)(?P<unit>[kmb])(?![0-9a-z])", re.IGNORECASE)
_SEED: Final = re.compile(r"-?(?:seed|s)(?P<seed>\d+)$", re.IGNORECASE)
_PRECISION: Final = re.compile(r"-(?:bf16|fp16|fp32)\b", re.IGNORECASE)
_UNITS: Final = {"k": 1e3, "m": 1e6, "b": 1e9}


@dataclass(frozen=True)
class External:
    """A table that was read, and what was done to it."""

    table: pd.DataFrame
    """Tidy, with the columns of `series.COLUMNS`; smaller models first, those of unknown size last."""
    counts: Mapping[str, int]
    """Rows read, rows that repeat a checkpoint, checkpoints without a value, and rows of each status of `LEFT_OUT`."""
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
    rows, unused = _renamed(frame.reset_index(drop=True), dict(columns or {}), dict(constants or {}))
    rows = rows.assign(**{name: _names(rows, name) for name in _NAMES if name in rows})
    numbers = {name: _numbers(rows, name) for name in _NUMERIC if name in rows}
    values, status = _values(rows)
    step = _whole(numbers["step"], "step")
    notes = [f"columns not used: {', '.join(unused)}"] if unused else []
    tokens, source = _tokens(numbers.get("tokens"), step, rows["model"], tokens_per_step)
    stderr = numbers.get("stderr", pd.Series(np.nan, rows.index))
    _refuse(
        (stderr < 0) | (stderr > _LARGEST),
        f"a standard error is negative or beyond {_LARGEST:g}",
        "a number that is not negative, or nothing",
    )
    names = {model: read_name(model) for model in rows["model"].unique()}
    said = [names[model] for model in rows["model"]]
    half = NormalDist().inv_cdf(0.5 + CONFIDENCE / 2) * stderr
    tidy = pd.DataFrame(
        {
            "suite": rows["suite"] if "suite" in rows else [name.suite for name in said],
            "member": rows["model"],
            "scale": rows["scale"] if "scale" in rows else [name.scale for name in said],
            "seed": _whole(numbers["seed"], "seed") if "seed" in numbers else [name.seed for name in said],
            "parameters": _parameters(numbers["parameters"])
            if "parameters" in numbers
            else pd.array([name.parameters for name in said], dtype="Int64"),
            "step": step,
            "tokens": tokens,
            "task": rows["task"],
            "quantity": rows["metric"],
            "value": values,
            "low": values - half,
            "high": values + half,
            "status": status,
            "duplicate_of": pd.array([None] * len(rows), dtype="Int64"),
            "part": "",
        }
    )
    _refuse_pooling(tidy)
    once = _once(tidy).sort_values("parameters", kind="stable")
    counts = {"rows": len(rows), "repeated": len(tidy) - len(once), "missing": int(once["value"].isna().sum())}
    counts |= {word: int((status == word).sum()) for word in LEFT_OUT if (status == word).any()}
    return External(as_table(list(once[list(COLUMNS)].itertuples(index=False, name=None))), counts, (*notes, *source))


# --- Columns --------------------------------------------------------------------------------------------------------


def _renamed(
    frame: pd.DataFrame, columns: dict[str, str], constants: dict[str, str]
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """The columns that we know under our names, without blank lines, and the names of the others."""
    known = (*NEEDED, *OPTIONAL)
    frame = frame.rename(columns=lambda name: str(name).strip()).dropna(how="all")
    if frame.columns.has_duplicates:
        raise OntogenyError(f"Two columns are named {frame.columns[frame.columns.duplicated()][0]!r}: rename one.")
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
        cased = [f"{name.lower()}={name}" for name in frame.columns if name.lower() in known and name not in known]
        renamed = f"{','.join(cased)} (case counts)" if cased else f"{missing[0]}=THEIRS"
        raise OntogenyError(
            f"No column {', '.join(missing)}: the file has {_listed(frame)}. Expected {', '.join(NEEDED)}, and tokens "
            f"and stderr if known. Rename with --map {renamed}, or give one value for all rows with "
            f"--set {missing[0]}=VALUE."
        )
    if rows.empty:
        raise OntogenyError("The file has no rows: expected one row a model, step, task and metric.")
    return rows, tuple(name for name in frame.columns if name not in sources.values())


def _listed(frame: pd.DataFrame) -> str:
    return ", ".join(frame.columns) or "none"


def _refuse(wrong: pd.Series, what: str, expected: str) -> None:
    """Raise for the first row in which something is wrong; line 1 of the file is its header, row 0 is line 2."""
    if wrong.any():
        line = int(wrong.index[wrong][0]) + 2
        others = int(wrong.sum()) - 1
        more = f" ({others} more rows like it)" if others else ""
        raise OntogenyError(f"Line {line}: {what}{more}; expected {expected}.")


def _names(rows: pd.DataFrame, name: str) -> pd.Series:
    """A column of names, without blanks around them."""
    names = rows[name].astype("string").str.strip().fillna("")
    _refuse(names == "", f"column {name} is empty", "a name")
    return names.astype(str)


def _numbers(rows: pd.DataFrame, name: str) -> pd.Series:
    """A column of numbers; empty cells are NaN."""
    given = rows[name]
    numbers = pd.to_numeric(given, errors="coerce").astype(float)
    _refuse(numbers.isna() & given.notna(), f"column {name} holds text", "a number")
    return numbers


def _whole(numbers: pd.Series, name: str) -> pd.Series:
    good = (numbers >= 0) & (numbers < _TOO_LARGE) & (numbers == numbers.round())
    _refuse(~good, f"column {name} holds no whole number", "0, 1, 2, ... below 2^63")
    return numbers.astype("int64")


def _parameters(numbers: pd.Series) -> pd.Series:
    good = numbers.isna() | ((numbers >= 1) & (numbers < _TOO_LARGE))
    _refuse(~good, "column parameters holds no size of a model", "a number from 1 up, or nothing")
    return numbers.round().astype("Int64")


def _values(rows: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
    """Values, NaN where there is none or the status says not to use it, and the status."""
    given = rows["value"]
    word = given.astype(str).str.strip().str.lower()
    values = pd.to_numeric(given, errors="coerce").astype(float)
    text = values.isna() & given.notna()
    expected = f"a number, nothing, or one of {', '.join(LEFT_OUT)}"
    _refuse(text & ~word.isin(LEFT_OUT), "column value holds text", expected)
    values = values.where(np.isfinite(values))
    _refuse(values.abs() > _LARGEST, f"a value is beyond {_LARGEST:g}", expected)
    stated = rows["status"] if "status" in rows else pd.Series(_USED[0], rows.index)
    stated = stated.fillna(_USED[0]).astype(str).str.strip().str.lower()
    statuses = (*_USED, *LEFT_OUT)
    _refuse(~stated.isin(statuses), "column status holds another word", f"nothing, or one of {', '.join(statuses)}")
    status = stated.mask(text, word)
    values = values.mask(status.isin(LEFT_OUT))
    return values, status.mask(values.isna() & status.isin(_USED), "nan")


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
    if not 0 < tokens_per_step < math.inf:
        raise OntogenyError(f"--tokens-per-step is {tokens_per_step:g}: expected a number above 0.")
    tokens = (step.astype(float) * tokens_per_step).round()
    _refuse(tokens >= _TOO_LARGE, f"step × {tokens_per_step:,.0f} tokens is not below 2^63", "a smaller step")
    return tokens.astype("int64"), (f"tokens = step × {tokens_per_step:,.0f}",)


# --- Rows ------------------------------------------------------------------------------------------------------------


def _refuse_pooling(tidy: pd.DataFrame) -> None:
    """Rows that would be taken together although they are of different sizes, or after different tokens."""
    size = tidy["parameters"].astype(float).fillna(0.0)
    _refuse(
        size != size.groupby([tidy["suite"], tidy["scale"]]).transform("first"),
        "suite and scale are those of an earlier row, but not the parameters",
        "one size for each scale of a suite; name another suite or scale in a column",
    )
    _refuse(
        tidy["tokens"] != tidy.groupby(_REPEATED)["tokens"].transform("first"),
        "model, task, metric and step are those of an earlier row, but not the tokens",
        "the same tokens at one step",
    )


def _once(tidy: pd.DataFrame) -> pd.DataFrame:
    """One row a series and step: the mean of the values of those that repeat it, and the first status of a value."""
    valued = tidy.assign(status=tidy["status"].where(tidy["value"].notna()))
    groups = valued.groupby(_REPEATED, sort=False)
    means = groups[["value", "low", "high"]].transform("mean")
    status = groups["status"].transform("first").fillna(tidy["status"])
    return tidy.assign(**means, status=status).drop_duplicates(_REPEATED)
