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


def test_a_value_counts_only_if_its_status_allows_it() -> None:
    read = external_table(frame(status=["Failed", None, "found"]))
    np.testing.assert_equal(read.table["value"].to_numpy(), [math.nan, 0.3, 0.4])
    np.testing.assert_equal(read.table["low"].isna().to_numpy(), [True, False, True])  # the last has no standard error
    assert read.table["status"].tolist() == ["failed", "measured", "found"]
    assert read.counts == {"rows": 3, "repeated": 0, "missing": 1, "failed": 1}


@pytest.mark.parametrize("values", [["0.2", "not_learned", "0.4"], ["0.2", "0.4", "not_learned"]])
def test_a_word_and_a_value_at_one_checkpoint_are_both_counted(values: list[str]) -> None:
    read = external_table(frame(step=[0, 1, 1], tokens=[0, 10, 10], value=values))
    assert read.table["value"].tolist() == [0.2, 0.4]
    assert read.table["status"].tolist() == ["measured", "measured"]
    assert read.counts == {"rows": 3, "repeated": 1, "missing": 0, "not_learned": 1}


def test_blanks_around_names_make_no_other_model_or_column() -> None:
    read = external_table(frame(model=[" pythia-70m", "pythia-70m ", "pythia-70m"]).rename(columns={"step": " step "}))
    assert set(read.table["member"]) == {"pythia-70m"}


def test_models_come_by_size_whatever_their_order_in_the_file_and_last_without_one() -> None:
    read = external_table(frame(model=["gpt2", "pythia-12b", "pythia-1.4b"]))
    assert read.table["member"].tolist() == ["pythia-1.4b", "pythia-12b", "gpt2"]
    assert read.table["parameters"].isna().tolist() == [False, False, True]


def test_models_of_one_scale_and_size_are_taken_together() -> None:
    """As `scale` alone says it, and where neither says a size; another size is refused, see below."""
    assert len(external_table(frame(model=["a", "b", "c"], scale=["x"] * 3)).table) == 3
    assert len(external_table(frame(model=["a", "b", "c"], scale=["x"] * 3, parameters=[7] * 3)).table) == 3


def test_lines_are_those_of_the_file_though_some_are_blank() -> None:
    blank = pd.concat([frame().iloc[:1], pd.DataFrame([{}, {}]), frame(step=[1, 2, "x"])], ignore_index=True)
    with pytest.raises(OntogenyError, match="Line 7: column step holds text"):
        external_table(blank)
    assert external_table(blank.iloc[:5]).counts["rows"] == 3


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
        ({"model": ["pythia-70m", "  ", "pythia-70m"]}, {}, "Line 3: column model is empty; expected a name"),
        ({"suite": ["a", None, "a"]}, {}, "Line 3: column suite is empty; expected a name"),
        ({"step": [0, 1, "1e30"]}, {}, "Line 4: column step holds no whole number; expected 0, 1, 2, ... below 2^63"),
        ({"tokens": [0, 1, 10**19]}, {}, "Line 4: column tokens holds no whole number"),
        ({"tokens": [0, 1, 2**63]}, {}, "Line 4: column tokens holds no whole number"),
        ({"tokens": None, "step": [0, 1, 10**15]}, {}, "Line 4: step × 2,097,152 tokens is not below 2^63"),
        ({}, {"tokens_per_step": math.inf}, "--tokens-per-step is inf: expected a number above 0"),
        ({}, {"tokens_per_step": 1e30}, "Line 3: step × 1,000,000,"),
        ({"stderr": [0.1, math.inf, 0.1]}, {}, "Line 3: a standard error is negative or beyond 1e+100"),
        ({"value": [0.1, 1e200, 0.1]}, {}, "Line 3: a value is beyond 1e+100; expected a number, nothing, or one of"),
        ({"status": ["measured", "ok", None]}, {}, "Line 3: column status holds another word; expected nothing, or one "
         "of measured, found, threshold_unmet, not_learned"),
        ({"parameters": [1, 0, 1]}, {}, "Line 3: column parameters holds no size of a model; expected a number from 1"),
        ({"parameters": [-5, 1, math.inf]}, {}, "Line 2: column parameters holds no size of a model (1 more rows"),
        ({"model": ["a", "b", "b"], "scale": ["1b"] * 3, "parameters": [1000, 2000, 2000]}, {},
         "Line 3: suite and scale are those of an earlier row, but not the parameters (1 more rows like it); expected "
         "one size for each scale of a suite"),
        ({"scale": ["1b"] * 3, "parameters": [1000, None, 1000]}, {}, "Line 3: suite and scale are those of an"),
        ({"step": [0, 1, 1]}, {}, "Line 4: model, task, metric and step are those of an earlier row, but not the "
         "tokens; expected the same tokens at one step"),
        ({"Model": ["x"] * 3, "model": None}, {}, "No column model: the file has step, tokens, task, metric, value, "
         "stderr, Model. Expected model, step, task, metric, value, and tokens and stderr if known. Rename with --map "
         "model=Model (case counts)"),
        ({"value ": [1] * 3}, {}, "Two columns are named 'value': rename one."),
        ({"tokens": None, "model": ["gpt2"] * 3}, {}, "No column tokens: expected the training tokens"),
        ({}, {"tokens_per_step": -1.0}, "--tokens-per-step is -1: expected a number above 0"),
        ({name: [] for name in frame()}, {}, "The file has no rows"),
    ],
)  # fmt: skip
def test_wrong_columns_say_which_and_what_was_expected(changes: dict, options: dict, said: str) -> None:
    with pytest.raises(OntogenyError) as error:
        external_table(frame(**changes), **options)
    assert said in str(error.value)
