"""Pictures of series, tested on their rows; a person has looked at those of the published series."""

from __future__ import annotations

import pandas as pd

from ontogeny.figures.onset import (
    draw_onsets,
    draw_series,
    draw_size_changes,
    onset_rows,
    series_rows,
    size_change_rows,
)
from ontogeny.figures.style import WARNING, render
from ontogeny.params import TrajectoryParams
from ontogeny.series import emergences, external_table, fluctuations

PARAMS = TrajectoryParams(resamples=50)


def frame(metrics: tuple[str, ...] = ("acc",)) -> pd.DataFrame:
    rows = [
        (model, step, 1000 * 2**step, "sums", metric, 0.1 + top * (step >= 6) + 0.001 * (step % 3), 0.01)
        for model, top in (("net-1m", 0.0), ("net-8m", 0.8), ("net-64m", 0.9))
        for metric in metrics
        for step in range(12)
    ]
    return pd.DataFrame(rows, columns=["model", "step", "tokens", "task", "metric", "value", "stderr"])


def test_one_onset_a_line_that_has_one() -> None:
    table = external_table(frame()).table
    found = emergences(table, PARAMS)
    rows = series_rows(table, found)
    assert len(rows) == len(table)
    assert rows.groupby("member")["onset"].sum().to_dict() == {"net-1m": 0, "net-64m": 1, "net-8m": 1}
    assert rows.loc[rows["onset"], "step"].unique().tolist() == [6]
    forest = onset_rows(found).set_index("member")
    assert forest["status"].to_dict() == {"net-1m": "never", "net-8m": "found", "net-64m": "found"}
    assert (forest.loc["net-8m", "onset_low"], forest.loc["net-8m", "onset_high"]) != (None, None)
    assert forest["label"].to_dict() == {"net-1m": "1m", "net-8m": "8m", "net-64m": "64m"}
    drawn = draw_onsets(onset_rows(found))
    texts = [text.get_text() for text in drawn.axes[0].texts]
    assert texts == ["never"]
    assert [tick.get_text() for tick in drawn.axes[0].get_yticklabels()] == ["1m", "8m", "64m"]


def test_panels_name_the_metric_where_there_are_several() -> None:
    one, two = (external_table(frame(metrics)).table for metrics in (("acc",), ("acc", "rank")))
    assert set(series_rows(one, emergences(one, PARAMS))["task"]) == {"sums"}
    assert set(series_rows(two, emergences(two, PARAMS))["task"]) == {"sums, acc", "sums, rank"}


def test_models_of_unknown_size_are_drawn_too() -> None:
    table = external_table(frame().replace({"net-1m": "a", "net-8m": "b", "net-64m": "c"})).table
    assert table["parameters"].isna().all()
    rows = series_rows(table, emergences(table, PARAMS))
    assert rows["colour"].notna().all()
    assert rows.groupby("member")["colour"].first().nunique() == 3
    assert len(draw_series(rows).axes) == 1


def test_sizes_and_their_changes_are_drawn_the_same_every_time() -> None:
    sizes = frame().assign(metric="edges", value=lambda t: 10.0 + 40 * (t["step"] >= 6) + t["step"] % 2)
    table = external_table(sizes).table
    found = fluctuations(table, PARAMS)
    rows = size_change_rows(table, found)
    assert (rows["kind"] == "size").sum() == 36
    assert rows.loc[rows["kind"] == "change", "step"].tolist() == [6, 6, 6]
    assert render(draw_size_changes(rows), "svg") == render(draw_size_changes(rows), "svg")


def test_an_interval_that_disagrees_with_the_rule_is_marked() -> None:
    rows = onset_rows(emergences(external_table(frame()).table, PARAMS))
    assert rows["agrees"].dropna().all()
    apart = rows.assign(agrees=rows["agrees"].where(rows["member"] != "net-8m", False))
    for table, marks in ((rows, 0), (apart, 1)):
        figure = draw_onsets(table)
        assert sum(line.get_color() == WARNING for line in figure.axes[0].lines) == marks
        assert len([word for legend in figure.legends for word in legend.get_texts()]) == 2 + marks


def test_without_onsets_the_axis_has_no_ticks_and_a_narrow_one_has_several() -> None:
    rows = onset_rows(emergences(external_table(frame()).table, PARAMS))
    (axes,) = draw_onsets(rows).axes
    low, high = axes.get_xlim()
    assert sum(low <= tick <= high for tick in axes.get_xticks()) >= 2
    (empty,) = draw_onsets(rows[rows["status"] == "never"]).axes
    assert not len(empty.get_xticks())
    assert [text.get_text() for text in empty.texts] == ["never"]


def test_without_values_a_picture_says_so() -> None:
    table = external_table(frame()).table.assign(value=float("nan"))
    drawn = draw_series(series_rows(table, emergences(table, PARAMS))).axes[0]
    assert [text.get_text() for text in drawn.texts] == ["no values"]
    figure = draw_size_changes(size_change_rows(table, fluctuations(table, PARAMS)))
    assert [text.get_text() for text in figure.axes[0].texts] == ["no sizes"]
    words = [word.get_text() for legend in figure.legends for word in legend.get_texts()]
    assert words[-3:] == ["size at a checkpoint", "level", "where the level changes, interval"]
