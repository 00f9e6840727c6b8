"""`ontogeny series`: the published Pythia series, and files that are refused."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ontogeny.core.errors import OntogenyError
from ontogeny.params import TrajectoryParams
from ontogeny.stages.series import Findings, examine, parse_pairs, rule_params, write_findings

PYTHIA = Path(__file__).parents[3].parent / "shared" / "pythia"
PARAMS = TrajectoryParams(resamples=100)
needs_pythia = pytest.mark.skipif(
    not PYTHIA.is_dir(), reason="needs ../shared/pythia beside the repository: published Pythia evaluations"
)


@pytest.fixture(scope="module")
def published() -> Findings:
    return examine(PYTHIA / "evals_zero_shot.csv", PARAMS, columns={}, constants={})


def answers(found: Findings, task: str) -> pd.DataFrame:
    table = found.tables["onsets"]
    return table[table["task"] == task].set_index(["member", "quantity"])


@needs_pythia
def test_sciq_appears_between_5e8_and_1e10_tokens_from_160m_up(published: Findings) -> None:
    rows = answers(published, "sciq")
    large = rows[rows["parameters"] >= 160_000_000]
    assert len(large) == 28  # 14 models, accuracy and normalised accuracy
    assert set(large["status"]) == {"found"}
    for name in ("tokens", "onset_low", "onset_tokens", "onset_high"):
        assert large[name].astype(float).between(5e8, 1e10).all(), name
    assert large["agrees"].all()
    assert (large["onset_low"] < large["onset_high"]).all()


@needs_pythia
@pytest.mark.parametrize("task", ["logiqa", "wsc"])
def test_logiqa_and_wsc_never_appear_in_any_of_the_16_models(published: Findings, task: str) -> None:
    rows = answers(published, task)
    assert rows.index.get_level_values("member").nunique() == 16
    assert set(rows["status"]) == {"never"}
    assert (rows["checkpoints"] == 27).all()


@needs_pythia
def test_winogrande_appears_for_12b_near_5e10_tokens_and_never_for_70m(published: Findings) -> None:
    rows = answers(published, "winogrande")
    largest = rows.loc[("pythia-12b", "acc")]
    assert largest["status"] == "found"
    assert 2.5e10 <= largest["onset_low"] <= largest["onset_tokens"] <= largest["onset_high"] <= 6.5e10
    assert set(rows.loc[["pythia-70m", "pythia-70m-deduped"], "status"]) == {"never"}


@needs_pythia
def test_lambada_is_partly_unlearned_by_the_smallest_model_only(published: Findings) -> None:
    """70m goes from 0.25 back to 0.18; 12b ends at its best."""
    rows = answers(published, "lambada_openai")
    assert rows.loc[("pythia-70m", "acc"), "ending"] == "lower"
    assert rows.loc[("pythia-12b", "acc"), "ending"] == "kept"
    assert rows.loc[("pythia-12b", "acc"), "kept"] > 0.95 > rows.loc[("pythia-70m", "acc"), "kept"]


@needs_pythia
def test_steps_0_and_1_are_alike_and_change_nothing(published: Findings) -> None:
    table = published.read.table
    sciq = table[(table["task"] == "sciq") & (table["member"] == "pythia-12b") & (table["quantity"] == "acc")]
    assert sciq.set_index("step").loc[[0, 1], "value"].nunique() == 1
    from ontogeny.series import emergences

    (with_both,), (without,) = (emergences(part, PARAMS) for part in (sciq, sciq[sciq["step"] != 1]))
    assert with_both.onset.step == without.onset.step == 1000


@needs_pythia
def test_plain_rule_of_the_papers_code_finds_step_0(published: Findings) -> None:
    """METHODS 6.6: for all 16 models on 6 of 8 tasks; lambada starts at 0, and WSC where it likes."""
    plain = examine(PYTHIA / "evals_zero_shot.csv", rule_params("cot_33"), columns={}, constants={})
    table = plain.tables["onsets"]
    first = table[table["status"] == "before the first checkpoint"].groupby("task")["member"].nunique()
    assert (first == 16).sum() >= 6
    assert "lambada_openai" not in first.index
    assert "before the first checkpoint" not in set(published.tables["onsets"]["status"])


@needs_pythia
def test_sizes_of_the_published_ioi_circuits(tmp_path: Path) -> None:
    """The two levels of the picture: near 200 edges until about 1e11 tokens, near 900 after 1.8e11."""
    found = examine(
        PYTHIA / "ioi_edges_410m.csv",
        PARAMS,
        columns={"step": "checkpoint", "value": "num_edges"},
        constants={"model": "pythia-410m", "task": "ioi", "metric": "edges"},
    )
    edges = pd.read_csv(PYTHIA / "ioi_edges_410m.csv")["num_edges"]
    (row,) = found.tables["fluctuation"].to_dict("records")
    assert row["variation"] == pytest.approx(edges.std() / edges.mean())
    assert row["low"] < row["variation"] < row["high"]
    changes = found.tables["changes"]
    assert changes["before"].iloc[0] < 300 < 800 < changes["after"].iloc[-1]
    assert (changes["low"] < changes["high"]).all()
    assert "onsets" not in found.tables

    written = {path.name for path in write_findings(found, tmp_path)}
    assert written == {"fluctuation.csv", "changes.csv", "series.json", "sizes-pythia.png", "sizes-pythia.svg"}


def small(folder: Path) -> Path:
    """Two models, one of which learns; a NaN and a repeated row."""
    rng, rows = np.random.default_rng(0), []
    for model, top in (("net-1m", 0.0), ("net-8m", 0.8)):
        for step in range(12):
            value = 0.1 + top * (step >= 6) + rng.normal(0, 0.005)
            rows.append((model, step, 1000 * 2**step, "sums", "acc", value, 0.01))
    rows += [rows[-1], ("net-1m", 12, 1000 * 2**12, "sums", "acc", math.nan, math.nan)]
    frame = pd.DataFrame(rows, columns=["model", "step", "tokens", "task", "metric", "value", "stderr"])
    frame.to_csv(folder / "small.csv", index=False)
    return folder / "small.csv"


def test_what_is_written_is_the_same_every_time_and_says_what_was_counted(tmp_path: Path) -> None:
    found = examine(small(tmp_path), PARAMS, columns={}, constants={})
    first, second = (write_findings(found, tmp_path / name) for name in ("a", "b"))
    assert [path.name for path in first] == [path.name for path in second]
    assert {"onsets.csv", "differences.csv", "trend.csv", "onsets-net.png"} <= {path.name for path in first}
    assert all(one.read_bytes() == other.read_bytes() for one, other in zip(first, second))
    said = json.loads((tmp_path / "a" / "series.json").read_text())
    assert said["counts"] == {"rows": 26, "repeated": 1, "missing": 1, "nan": 1}
    assert [row["status"] for row in said["onsets"]] == ["never", "found"]
    assert [row["left_out"] for row in said["onsets"]] == [1, 0]
    assert said["onsets"][0]["onset_low"] is None
    assert 32_000 < said["onsets"][1]["onset_low"] < said["onsets"][1]["onset_high"] < 64_000


def test_command_prints_tables_and_refuses_wrong_files(tmp_path: Path) -> None:
    file = small(tmp_path)

    def ontogeny(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "ontogeny", "series", *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    done = ontogeny(str(file))
    assert done.returncode == 0, done.stderr
    assert "net-8m" in done.stdout
    assert "26 rows, 1 repeated, 1 missing" in done.stdout
    assert (tmp_path / "series-small" / "onsets.csv").exists()
    refused = ontogeny(str(file), "--map", "value=accuracy", "--out", "nowhere")
    assert refused.returncode == 2
    assert "there is no column 'accuracy'; the file has model, step, tokens" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert not (tmp_path / "nowhere").exists()


def test_files_and_options_that_make_no_sense(tmp_path: Path) -> None:
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00\x01")
    (tmp_path / "empty.csv").write_text("")
    for name in ("nowhere.csv", "binary.csv", "empty.csv"):
        with pytest.raises(OntogenyError, match=name):
            examine(tmp_path / name, PARAMS, columns={}, constants={})
    with pytest.raises(OntogenyError, match="expected NAME=VALUE"):
        parse_pairs(["step"], "--map")
    with pytest.raises(OntogenyError, match="'a' is given twice"):
        parse_pairs(["a=b,a=c"], "--set")
    assert parse_pairs(["a=b, c=d", "e=f"], "--set") == {"a": "b", "c": "d", "e": "f"}
    with pytest.raises(OntogenyError, match="expected base_33 or cot_33"):
        rule_params("half")
