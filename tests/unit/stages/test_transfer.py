"""The stage `transfer` on models that compute the same under other names, and on one that has learnt nothing."""

import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from ontogeny.core.transfer import Transfer
from ontogeny.execution import transfers
from ontogeny.execution.jobs import Job, Outcome
from ontogeny.records import Failure, MemberRecord, read_json, read_member, read_transfer, write_member
from ontogeny.records.datasets import Checkpoints, write_checkpoints
from ontogeny.stages import analyse, transfer
from ontogeny.stages.study import Study
from ontogeny.stages.work import Shard, run_shard
from support.letters_study import STEPS, TASK, TO, Here, damage, letters_study

MEMBERS = ("small-s0", "small-s1")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Analysed, and carried."""
    study = letters_study(tmp_path_factory.mktemp("letters") / "study")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Study, "executor", lambda _: Here())
        patch.setitem(transfer.ROLES_OF_TASKS, TASK, ("previous_token", "name_mover"))  # type: ignore[misc]
        for member in MEMBERS:
            analyse.run(study, member)
        for member in MEMBERS:
            transfer.run(study, member)
    return study


def rows(study: Study, member: str, heads: str, source: str) -> dict[tuple[int, int], Transfer]:
    """(source, target) -> row."""
    record = read_transfer(study.transfers(member))
    return {
        (row.source_step, row.step): row
        for row in record.transfers
        if (row.heads, row.source_member) == (heads, source)
    }


def test_the_study_is_what_the_tests_need(study: Study) -> None:
    for member in MEMBERS:
        found = read_member(study.analyses(member)).analyses
        assert [a.tasks[TASK].circuit.status for a in found] == ["not_learned", "found", "found"]
        assert read_json(study.failures / f"transfer-{member}.json") == []


def test_every_pair_of_anchors_has_a_row_and_the_diagonal_is_the_circuits_own_faithfulness(study: Study) -> None:
    analyses = {a.ref.step: a for a in read_member(study.analyses("small-s0")).analyses}
    own = rows(study, "small-s0", "own", "small-s0")
    assert set(own) == {(source, target) for source in STEPS for target in STEPS}
    assert read_transfer(study.transfers("small-s0")).anchors == STEPS
    for step in (16, 32):
        at_home, held_out = own[step, step], analyses[step].tasks[TASK].circuit.faithfulness["held_out"]
        assert at_home.status == "measured"
        assert at_home.raw == pytest.approx(held_out.raw, abs=1e-6)
        assert at_home.normalised == pytest.approx(held_out.normalised, abs=1e-6)
        assert at_home.kept == analyses[step].tasks[TASK].circuit.kept
        assert at_home.jaccard == 1.0
    assert own[16, 32].raw != own[32, 32].raw


def test_what_is_not_there_is_not_a_number_and_says_why(study: Study) -> None:
    own = rows(study, "small-s0", "own", "small-s0")
    for target in STEPS:
        row = own[8, target]
        assert (row.status, row.kept) == ("no circuit at step 8: not_learned", None)
        assert all(math.isnan(x) for x in (row.metric, row.raw, row.normalised, row.jaccard))
    early = own[32, 8]
    assert early.status == "not_learned"
    assert math.isfinite(early.metric)
    assert math.isnan(early.raw)
    assert math.isnan(early.normalised)


def test_matched_heads_of_another_seed_do_what_its_own_do(study: Study) -> None:
    """`small-s1` is `small-s0` under other names: matched, a circuit is worth what it is worth at home."""
    at_home = rows(study, "small-s0", "own", "small-s0")[32, 32]
    kinds = {heads: rows(study, "small-s1", heads, "small-s0")[32, 32] for heads in ("unmatched", "matched", "random")}
    assert kinds["matched"].raw == pytest.approx(at_home.raw, abs=1e-5)
    assert kinds["matched"].jaccard == 1.0
    assert kinds["unmatched"].raw < at_home.raw - 0.05
    assert kinds["random"].jaccard < 1
    record = read_transfer(study.transfers("small-s1"))
    named = {(m.layer, m.source_head): m.head for m in record.matches if m.step == 32}
    assert named == {(layer, head): int(TO[layer, head]) for layer in range(2) for head in range(3)}
    assert max(m.distance for m in record.matches if m.step == 32) < 1e-4


def test_role_heads_are_ablated_at_the_last_anchors_where_the_task_is_learnt(study: Study) -> None:
    record = read_transfer(study.transfers("small-s0"))
    assert [(a.step, a.role) for a in record.ablations] == [
        (step, role) for step in (16, 32) for role in ("previous_token", "name_mover")
    ]
    holders = {a.ref.step: a.holders for a in read_member(study.analyses("small-s0")).analyses}
    for each in record.ablations:
        assert each.heads == holders[each.step].get(each.role, ())
        assert (each.status == "undefined") == (each.heads == ())
        assert math.isfinite(each.cost) == (each.heads != ())


def test_again_nothing_is_computed_and_the_bytes_are_the_same(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(transfer.ROLES_OF_TASKS, TASK, ("previous_token", "name_mover"))  # type: ignore[misc]
    monkeypatch.setattr(Study, "executor", lambda _: Here())

    monkeypatch.delattr(transfers, "opened_checkpoint")
    folder = study.transfers("small-s0")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert set(before) == {"transfer.json", "transfers.parquet", "ablations.parquet", "matches.parquet"}
    transfer.run(study, "small-s0")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_damaged_anchor_fails_alone_and_is_done_again(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(transfer.ROLES_OF_TASKS, TASK, ("previous_token", "name_mover"))  # type: ignore[misc]
    monkeypatch.setattr(Study, "executor", lambda _: Here())
    folder, jobs = study.transfers("small-s0"), study.places.jobs
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    kept = jobs.with_name("kept")
    jobs.rename(kept)
    mend = damage(study.checkpoints("small-s0") / "step16" / "model.safetensors")
    transfer.run(study, "small-s0")
    (failure,) = read_json(study.failures / "transfer-small-s0.json")
    assert (failure["member"], failure["step"]) == ("small-s0", 16)
    own = rows(study, "small-s0", "own", "small-s0")
    assert own[32, 16].status == "failed at step 16"
    assert math.isnan(own[32, 16].metric)
    assert own[32, 32].status == "measured"
    mend()
    transfer.run(study, "small-s0")
    assert read_json(study.failures / "transfer-small-s0.json") == []
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_shards_leave_nothing_to_do(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each anchor once, the roles of other seeds first; the stage then puts the same bytes together."""
    executor = Watched()
    monkeypatch.setitem(transfer.ROLES_OF_TASKS, TASK, ("previous_token", "name_mover"))  # type: ignore[misc]
    monkeypatch.setattr(Study, "executor", lambda _: executor)
    before = {path: path.read_bytes() for member in MEMBERS for path in study.transfers(member).iterdir()}
    shutil.rmtree(study.places.jobs)
    assert run_shard(study, "transfer", Shard(0, 2))
    assert run_shard(study, "transfer", Shard(1, 2))
    anchors = [name for name in executor.done if not name.endswith("roles")]
    assert sorted(anchors) == sorted(f"{member} step {step}" for member in MEMBERS for step in STEPS)
    measured = [name for name in executor.done if name.endswith("roles")]
    assert len(measured) == len(set(measured)) > 0
    last = executor.done.index("small-s0 step 32")
    assert "small-s1 step 32 roles" in executor.done[:last], "they are compared with"
    assert run_shard(study, "transfer", Shard(0, 1))
    monkeypatch.delattr(transfers, "opened_checkpoint")
    for member in MEMBERS:
        transfer.run(study, member)
    assert {path: path.read_bytes() for path in before} == before


class Watched(Here):
    """Remembers what it did."""

    def __init__(self) -> None:
        self.done: list[str] = []

    def run(self, jobs: Sequence[Job], progress: object, more: Callable[[], Sequence[Job]] = tuple) -> list[Outcome]:
        """As `Here`."""
        outcomes = super().run(jobs, progress, more)
        self.done += [outcome.job.name for outcome in outcomes]
        return outcomes


def test_other_seeds_of_the_scale_are_mates() -> None:
    members = ("small-s0", "small-s1", "medium-s0", "small.wide-s0", "small-s10")
    assert transfer.mates_of("small-s0", members) == ("small-s1", "small-s10")
    assert transfer.mates_of("medium-s0", members) == ()


def test_a_member_without_any_analysis_has_no_anchor(tmp_path: Path) -> None:
    """Its training failed: there are no checkpoints, and the record says so by being empty."""
    study = letters_study(tmp_path / "study")
    lost = Failure("small-s0", None, "data/checkpoints/small-s0", "it diverged")
    write_checkpoints(study.checkpoints("small-s0"), Checkpoints((), (lost,)))
    for member in MEMBERS:
        write_member(study.analyses(member), MemberRecord("ladder", member, (), {}))
    transfer.run(study, "small-s0")
    record = read_transfer(study.transfers("small-s0"))
    assert (record.anchors, record.transfers, record.ablations) == ((), (), ())
