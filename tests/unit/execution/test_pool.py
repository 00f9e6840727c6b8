"""Workers: one thread each, failures are recorded, deaths cost one job."""

import errno
import logging
from pathlib import Path

import pytest

from ontogeny.execution.jobs import Job, Outcome, cores
from ontogeny.execution.pool import run_jobs
from ontogeny.execution.progress import LogProgress
from support import pool_jobs
from support.listening import Listener


def test_a_failing_a_dying_and_a_good_job(tmp_path: Path) -> None:
    """One run of five jobs on two workers: each ends as it should, whatever the others do."""
    jobs = [
        Job("good", pool_jobs.write, (tmp_path / "good",)),
        Job("refused", pool_jobs.refuse),
        Job("broken", pool_jobs.stumble),
        Job("killed once", pool_jobs.die_once, (tmp_path / "once",)),
        Job("killed always", pool_jobs.die),
        Job("last", pool_jobs.write, (tmp_path / "last",)),
    ]
    listener = Listener()
    outcomes = run_jobs(jobs, 2, listener)
    assert [outcome.job.name for outcome in outcomes] == [job.name for job in jobs]
    good, refused, broken, once, always, last = (outcome.error for outcome in outcomes)
    assert (good, once, last) == (None, None, None)
    assert refused == "step8/model.safetensors is cut short"
    assert broken == "ZeroDivisionError: oops"
    assert always is not None
    assert "died 2 times (exit code -9)" in always
    assert (tmp_path / "once").read_text() == "second"
    assert sorted(listener.ended) == sorted(job.name for job in jobs)
    assert ("good", 0.5, "half") in listener.notes
    _process, threads, environment = (tmp_path / "last").read_text().split()
    assert (threads, environment) == ("1", "1")


def test_a_lock_keeps_two_workers_from_the_same_work(tmp_path: Path) -> None:
    jobs = [Job(f"count {i}", pool_jobs.count_alone, (tmp_path / "n",), tmp_path / "n.lock") for i in range(4)]
    assert all(outcome.error is None for outcome in run_jobs(jobs, 2, Listener()))
    assert (tmp_path / "n").read_text() == "4"
    assert not (tmp_path / "n.lock").exists()


def test_no_jobs_need_no_workers() -> None:
    assert run_jobs([], None, Listener()) == []
    assert cores() >= 1


def test_a_log_tells_of_failures_and_of_the_end(caplog: pytest.LogCaptureFixture) -> None:
    jobs = [Job("a", pool_jobs.die, weight=3.0), Job("b", pool_jobs.die)]
    progress = LogProgress("Analysing", jobs)
    with caplog.at_level(logging.INFO, "ontogeny"):
        progress.update(jobs[0], 0.5, "")
        assert progress.done == pytest.approx(0.375)
        progress.finish(Outcome(jobs[0], "cut short"))
        progress.finish(Outcome(jobs[1], None))
    assert "Analysing: a failed: cut short" in caplog.text
    assert "100 %, 2 of 2 jobs" in caplog.text


def test_a_full_disk_ends_all_jobs_at_once(tmp_path: Path) -> None:
    """It is no failure of one job: all that would follow would be listed as failed, too."""
    jobs = [
        Job("full", pool_jobs.fill_disk),
        *(Job(f"next {i}", pool_jobs.write, (tmp_path / f"{i}",)) for i in (1, 2)),
    ]
    with pytest.raises(OSError, match="No space left") as caught:
        run_jobs(jobs, 1, LogProgress("Training", jobs))
    assert caught.value.errno == errno.ENOSPC
    assert not list(tmp_path.iterdir())
