"""Transfer as tables: against the records they come from, and numbers worked out on paper."""

import dataclasses
import math

import pandas as pd
import pytest

from ontogeny.core.transfer import Transfer
from ontogeny.records import TransferRecord
from ontogeny.series import ablation_table, alikeness, sets_beaten, transfer_measures, transfer_table
from support.synthetic_study import STEPS, TOKENS_A_STEP, study
from support.synthetic_transfers import transfers

RECORDS = study(("nano", "deep"), STEPS[-9:], ("ioi", "greater_than"), seeds=2)
CARRIED = transfers(RECORDS)
LAST = STEPS[-1]


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return transfer_table(CARRIED, RECORDS)


@pytest.fixture(scope="module")
def ablations() -> pd.DataFrame:
    return ablation_table(CARRIED, RECORDS)


def test_a_row_for_everything_that_was_asked_for(table: pd.DataFrame) -> None:
    # 2 scales x 2 seeds, 2 tasks, 8 anchors: own and random from 8 sources, 3 namings from one other seed.
    assert len(table) == 4 * 2 * 8 * (8 * 2 + 3)
    assert set(table["status"]) > {"measured"}
    assert table.loc[table["status"] != "measured", "raw"].isna().all()
    assert table.loc[table["status"] == "measured", "raw"].notna().all()
    assert (table["tokens"] == table["step"] * TOKENS_A_STEP).all()
    assert (table["source_tokens"] == table["source_step"] * TOKENS_A_STEP).all()
    assert set(table.loc[table["heads"] == "matched", "source_member"]) == {r.member for r in RECORDS}


def test_quantities_at_the_anchors_come_from_the_last_column_and_row(
    table: pd.DataFrame, ablations: pd.DataFrame
) -> None:
    found = transfer_measures(table, ablations)
    own = table[(table["heads"] == "own") & (table["member"] == "deep-s0") & (table["task"] == "ioi")]
    tidy = found[(found["member"] == "deep-s0") & (found["task"] == "ioi")].set_index(["quantity", "step"])["value"]
    for source, target, raw in zip(own["source_step"], own["step"], own["raw"]):
        if target == LAST and not math.isnan(raw):
            assert tidy["transfer/to_final/raw", source] == raw
        if source == LAST and not math.isnan(raw):
            assert tidy["transfer/from_final/raw", target] == raw
    assert tidy["transfer/seeds_matched/raw", LAST] == pytest.approx(0.6)
    assert tidy["transfer/seeds_unmatched/normalised", LAST] == pytest.approx(0.15)
    assert tidy["ablation/name_mover/beaten", LAST] == pytest.approx(0.98)
    assert len(found) == len(found.drop_duplicates(["member", "task", "step", "quantity"]))


def test_seeds_are_averaged_and_a_missing_one_does_not_hide_the_others() -> None:
    def row(of: str, raw: float, status: str) -> Transfer:
        return Transfer("ioi", LAST, of, LAST, "matched", status, 5, raw, raw, raw, 0.5)

    one = TransferRecord(
        "ladder", "deep-s0", (LAST,),
        (row("deep-s1", 0.4, "measured"), row("deep-s2", math.nan, "no circuit at step 1: nan"),
         row("deep-s3", 0.8, "measured")), (), (),
    )  # fmt: skip
    deep = {r.member: r for r in RECORDS}["deep-s1"]
    records = [*RECORDS, *(dataclasses.replace(deep, member=f"deep-s{seed}") for seed in (2, 3))]
    found = transfer_measures(transfer_table([one], records), ablation_table([one], records))
    (mean,) = found[found["quantity"] == "transfer/seeds_matched/raw"].itertuples()
    assert mean.value == pytest.approx(0.6)
    assert mean.status == "measured"


def test_over_time_against_over_seeds(table: pd.DataFrame) -> None:
    found = alikeness(table).set_index(["scale", "task", "what"])
    row = found.loc[("deep", "ioi", "at_home")]
    assert (row["raw"], row["jaccard"]) == (pytest.approx(0.82), 1.0)
    measured = table[(table["status"] == "measured") & (table["scale"] == "deep") & (table["task"] == "ioi")]
    home = (measured["member"] == measured["source_member"]) & (measured["heads"] == "own")
    moved = measured[home & (measured["step"] != measured["source_step"])]
    over = found.loc[("deep", "ioi", "over_time")]
    assert over["pairs"] == len(moved) > 20
    assert (over["raw_low"], over["raw"], over["raw_high"]) == (
        moved["raw"].min(),
        moved["raw"].median(),
        moved["raw"].max(),
    )
    assert found.loc[("deep", "ioi", "seeds_matched"), "raw"] == pytest.approx(0.6)
    assert found.loc[("deep", "ioi", "seeds_shuffled"), "raw"] == pytest.approx(0.1)
    assert found.loc[("deep", "ioi", "seeds_matched"), "pairs"] <= 2 * 8


def test_beaten_is_the_last_anchors_and_only_where_sets_can_stand_out(ablations: pd.DataFrame) -> None:
    assert sets_beaten(ablations) == {("name_mover", member): 0.98 for member in ("deep-s0", "deep-s1")}
    assert set(ablations["role"]) == {"name_mover", "induction", "successor"}
    assert ablations.loc[ablations["final"], "step"].eq(LAST).all()
    assert not ablations["final"].all()


def test_a_study_without_transfers_has_empty_tables() -> None:
    carried, ablated = transfer_table([], RECORDS), ablation_table([], RECORDS)
    assert len(carried) == len(ablated) == len(transfer_measures(carried, ablated)) == len(alikeness(carried)) == 0
    assert sets_beaten(ablated) == {}
