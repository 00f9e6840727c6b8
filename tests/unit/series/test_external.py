"""Anybody's CSV as the tidy table: what is understood, refused, and counted."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from ontogeny.core.errors import OntogenyError
from ontogeny.series import COLUMNS, external_table
from ontogeny.series.external import ModelName, read_name


def frame(**changes) -> pd.DataFrame:
    columns = {
        "model": ["pythia-70m"] * 3,
        "step": [0, 1, 2],
        "tokens": [0, 10, 20],
        "task": ["sciq"] * 3,
        "metric": ["acc"] * 3,
        "value": [0.2, 0.3, 0.4],
        "stderr": [0.01, 0.02, math.nan],
    }
    return pd.DataFrame({name: cells for name, cells in (columns | changes).items() if cells is not None})


def test_rows_become_the_tidy_table() -> None:
    read = external_table(frame())
    table = read.table
    assert tuple(table.columns) == COLUMNS
    assert table["parameters"].tolist() == [70_000_000] * 3
    assert table["tokens"].tolist() == [0, 10, 20]
    # 1.96 standard errors on both sides.
    np.testing.assert_allclose(table["high"] - table["value"], [0.0196, 0.0392, math.nan], atol=1e-4)
    assert (read.counts["rows"], read.counts["repeated"], read.counts["missing"]) == (3, 0, 0)
    assert read.notes == ()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("pythia-1.4b-deduped", ModelName("pythia-deduped", "1.4b", 0, 1_400_000_000)),
        ("pythia-1b-bf16", ModelName("pythia", "1b", 0, 1_000_000_000)),
        ("pythia-160m-seed3", ModelName("pythia", "160m", 3, 160_000_000)),
        ("EleutherAI/pythia-160m-data-seed1", ModelName("EleutherAI/pythia-data", "160m", 1, 160_000_000)),
        ("OLMo-1B", ModelName("OLMo", "1b", 0, 1_000_000_000)),
        ("gpt2", ModelName("models", "gpt2", 0, None)),
        ("small-s2", ModelName("models", "small", 2, None)),
    ],
)
def test_what_a_models_name_says(name: str, said: ModelName) -> None:
    assert read_name(name) == said


def test_columns_are_renamed_and_set() -> None:
    edges = pd.DataFrame({"checkpoint": [4000, 5000], "num_edges": [74, 223], "who": ["x", "y"]})
    read = external_table(
        edges,
        columns={"step": "checkpoint", "value": "num_edges"},
        constants={"model": "pythia-410m", "task": "ioi", "metric": "edges"},
    )
    assert read.table["value"].tolist() == [74.0, 223.0]
    assert read.table["tokens"].tolist() == [4000 * 2_097_152, 5000 * 2_097_152]
    assert read.notes == ("columns not used: who", "tokens = step × 2,097,152")
    other = external_table(frame(tokens=None), tokens_per_step=1536)
    assert other.table["tokens"].tolist() == [0, 1536, 3072]


def test_words_and_empty_cells_are_counted_not_dropped() -> None:
    read = external_table(frame(value=["0.2", "not_learned", None]))
    assert len(read.table) == 3
    assert read.table["status"].tolist() == ["measured", "not_learned", "nan"]
    assert read.counts == {"rows": 3, "repeated": 0, "missing": 2, "not_learned": 1, "nan": 1}


def test_rows_that_repeat_a_checkpoint_are_averaged_and_counted() -> None:
    read = external_table(frame(step=[0, 1, 1], tokens=[0, 10, 10], stderr=[0.01] * 3))
    assert read.table["step"].tolist() == [0, 1]
    assert read.table["value"].tolist() == pytest.approx([0.2, 0.35])
    assert read.counts["repeated"] == 1


@pytest.mark.parametrize(
    ("changes", "options", "said"),
    [
        ({"metric": None, "task": None}, {}, "No column task, metric: the file has model, step, tokens, value, stderr. "
         "Expected model, step, task, metric, value"),
        ({}, {"columns": {"value": "accuracy"}}, "value=accuracy: there is no column 'accuracy'; the file has model"),
        ({}, {"columns": {"scores": "value"}}, "'scores' is none of our columns: use model, step"),
        ({}, {"constants": {"model": "x"}}, "'model' is set to one value, but the file has a column for it"),
        ({"value": [0.1, "good", 0.3]}, {}, "Line 3: column value holds text; expected a number, nothing, or one of"),
        ({"step": [0, 1.5, 2]}, {}, "Line 3: column step holds no whole number"),
        ({"step": [0, 1, None]}, {}, "Line 4: column step holds no whole number"),
        ({"tokens": [0, "many", "more"]}, {}, "Line 3: column tokens holds text (1 more rows like it)"),
        ({"stderr": [0.1, 0.1, -0.1]}, {}, "Line 4: a standard error is negative"),
        ({"task": ["sciq", None, "sciq"]}, {}, "Line 3: column task is empty"),
        ({"tokens": None, "model": ["gpt2"] * 3}, {}, "No column tokens: expected the training tokens"),
        ({}, {"tokens_per_step": -1.0}, "--tokens-per-step is -1: expected a number above 0"),
        ({name: [] for name in frame()}, {}, "The file has no rows"),
    ],
)  # fmt: skip
def test_wrong_columns_say_which_and_what_was_expected(changes: dict, options: dict, said: str) -> None:
    with pytest.raises(OntogenyError) as error:
        external_table(frame(**changes), **options)
    assert said in str(error.value)
