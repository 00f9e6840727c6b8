"""Shares of the work: together everything once, whatever is done already; the stage then only puts it together."""

from pathlib import Path

import pytest

from ontogeny.core.errors import OntogenyError
from ontogeny.execution.jobs import Job
from ontogeny.stages import analyse
from ontogeny.stages.study import Study, stages_until
from ontogeny.stages.work import Piece, Shard, parse_shard, pieces_of, run_shard, share
from support.in_process import InProcess
from support.small_study import MEMBER, small_study


@pytest.fixture
def executor(monkeypatch: pytest.MonkeyPatch) -> InProcess:
    executor = InProcess()
    monkeypatch.setattr(Study, "executor", lambda _: executor)
    return executor


def test_a_shard_is_one_of_n() -> None:
    assert parse_shard("0/1") == Shard(0, 1)
    assert parse_shard("15/16") == Shard(15, 16)
    for wrong in ("16/16", "1", "a/b", "-1/4", "0/0", "1/2/3"):
        with pytest.raises(OntogenyError, match=r"expected i/n with i from 0 to n - 1"):
            parse_shard(wrong)


def test_shards_do_everything_once_and_the_stage_puts_it_together(tmp_path: Path, executor: InProcess) -> None:
    study = small_study(tmp_path / "study", 3)
    assert run_shard(study, "analyse", Shard(1, 2))
    assert executor.done == [f"{MEMBER} step 1"]
    assert run_shard(study, "analyse", Shard(0, 2)), "what is done already moves no job to another shard"
    assert executor.done == [f"{MEMBER} step {step}" for step in (1, 2, 0)]
    assert run_shard(study, "analyse", Shard(0, 2))
    assert not (study.places.data / "analyses").exists()
    assert not study.failures.exists()
    executor.done.clear()
    analyse.run(study, MEMBER)
    assert executor.done == []
    assert study.read_failures() == []
    assert (study.analyses(MEMBER) / "manifest.json").exists()


def test_a_failed_job_is_told_and_does_not_stop_the_others(tmp_path: Path, executor: InProcess) -> None:
    study = small_study(tmp_path / "study", 2)
    (study.checkpoints(MEMBER) / "step1" / "model.safetensors").write_bytes(b"short")
    assert not run_shard(study, "analyse", Shard(0, 1))
    assert len(executor.done) == 2
    assert [piece.is_done() for piece in pieces_of(study, "analyse")] == [False, True]


@pytest.mark.parametrize("of", [1, 2, 3, 7, 20])
def test_shards_have_each_piece_exactly_once(of: int) -> None:
    pieces = [Piece(lambda: False, lambda n=n: Job(str(n), print)) for n in range(11)]  # type: ignore[misc]
    shares = [share(pieces, Shard(number, of)) for number in range(of)]
    assert sorted(int(piece.job().name) for pieces in shares for piece in pieces) == list(range(11))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_stages_without_shared_jobs_are_refused(tmp_path: Path) -> None:
    study = small_study(tmp_path / "study", 1)
    with pytest.raises(
        OntogenyError, match=r"no work to share in a stage 'tune'; choose from checkpoints, analyse, transfer"
    ):
        pieces_of(study, "tune")


def test_a_study_may_stop_after_a_stage() -> None:
    assert stages_until("checkpoints") == ("corpus", "datasets", "checkpoints")
    with pytest.raises(OntogenyError, match="no stage 'cooking'"):
        stages_until("cooking")
