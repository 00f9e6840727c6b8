"""Jobs on a real Ray cluster of several nodes: they end as they do on local workers, also when a node is killed."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from ontogeny.core.errors import OntogenyError
from ontogeny.execution import ray_executor
from ontogeny.execution.analyses import analysis_job
from ontogeny.execution.executors import executor_of
from ontogeny.execution.jobs import Job
from ontogeny.execution.locks import held
from ontogeny.execution.pool import LocalExecutor
from ontogeny.execution.ray_executor import RayExecutor, import_ray
from ontogeny.params import ExecutionParams, RayParams
from ontogeny.stages import analyse
from support import pool_jobs
from support.listening import Listener
from support.small_study import MEMBER, contents, small_study

DRIVER = """
import sys
from pathlib import Path
from ontogeny.execution.jobs import Job
from ontogeny.execution.ray_executor import RayExecutor
from support import pool_jobs
from support.listening import Listener
job = Job("lingers", pool_jobs.linger, (Path(sys.argv[3]),))
RayExecutor(Path(sys.argv[1]), sys.argv[2]).run([job], Listener())
"""
NODE = {"num_cpus": 1, "object_store_memory": 80 * 2**20}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two nodes of one core each; the first is the head."""
    pytest.importorskip("ray", reason="Ray is not installed: pip install -c constraints.txt -e '.[ray]'")
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:  # Nodes hand their environment on to the workers.
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        cluster = in_time(lambda: Cluster(True, head_node_args=NODE | {"include_dashboard": False}))
        in_time(lambda: cluster.add_node(**NODE))
        yield cluster
        cluster.shutdown()


def in_time(start: Callable[[], Any], tries: int = 3) -> Any:
    """What starts a node; Ray gives it 30 s, which on a busy machine may take another try."""
    for left in reversed(range(tries)):
        try:
            return start()
        except Exception as error:
            if not left or "timed out during startup" not in str(error):
                raise
    raise AssertionError


def is_waited_for(lock: Path) -> bool:
    """Whether a process waits for a lock file that another holds."""
    waiting = f":{lock.stat().st_ino} "
    return any("->" in line and waiting in line for line in Path("/proc/locks").read_text().splitlines())


def test_jobs_end_as_on_local_workers(cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_executor, "_TRIES", 2)
    jobs = [
        Job("good", pool_jobs.write, (tmp_path / "good",)),
        Job("refused", pool_jobs.refuse),
        Job("broken", pool_jobs.stumble),
        Job("killed once", pool_jobs.die_once, (tmp_path / "once",)),
        Job("killed always", pool_jobs.die),
    ]
    further = [Job("further", pool_jobs.count_alone, (tmp_path / "n",), tmp_path / "n.lock")]
    listener = Listener()
    executor = RayExecutor(tmp_path / "cache", cluster.address)
    outcomes = executor.run(jobs, listener, lambda: further if "further" not in listener.ended else ())
    assert [outcome.job.name for outcome in outcomes] == [job.name for job in (*jobs, *further)]
    good, refused, broken, once, always, last = (outcome.error for outcome in outcomes)
    assert (good, once, last) == (None, None, None)
    assert refused == "step8/model.safetensors is cut short"
    assert broken == "ZeroDivisionError: oops"
    assert always is not None
    assert "its worker or node died 2 times" in always
    assert (tmp_path / "once").read_text() == "second"
    assert (tmp_path / "n").read_text() == "1"
    process, threads, environment = (tmp_path / "good").read_text().split()
    assert (threads, environment) == ("1", "1")
    assert int(process) != os.getpid()
    assert list((tmp_path / "cache").iterdir()) == []


def test_when_the_driver_is_killed_its_tasks_end(cluster: Any, tmp_path: Path) -> None:
    """Nobody would hear of their results."""
    told = tmp_path / "process"
    command = [sys.executable, "-c", DRIVER, str(tmp_path / "cache"), cluster.address, str(told)]
    driver = subprocess.Popen(command)
    try:
        assert eventually(told.exists)
        worker = psutil.Process(int(told.read_text()))
        assert worker.is_running()
    finally:
        driver.kill()
        driver.wait()
    assert eventually(lambda: not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE)


def eventually(condition: Callable[[], bool], seconds: float = 300.0) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.1)
    return condition()


@pytest.mark.skipif(sys.platform != "linux", reason="who waits for a lock is seen in /proc/locks")
def test_a_killed_node_costs_its_job_and_changes_no_byte(
    cluster: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The first two jobs wait for locks, one on each node, until one of the nodes is gone."""
    local = small_study(tmp_path / "local", 3, n_jobs=1)
    analyse.run(local, MEMBER)
    study = small_study(tmp_path / "ray", 3, executor="ray", ray={"address": cluster.address})
    works = analyse.works_of(study, MEMBER)
    first = [analysis_job(work) for work in works[:-3:-1]]
    killed = threading.Event()

    def kill() -> None:
        assert first[0].lock is not None
        assert first[1].lock is not None
        with held(first[0].lock, "the test"), held(first[1].lock, "the test"):
            ready.set()
            while not (is_waited_for(first[0].lock) and is_waited_for(first[1].lock)):
                time.sleep(0.1)
            cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
            killed.set()

    ready = threading.Event()
    killer = threading.Thread(target=kill)
    killer.start()
    ready.wait()
    analyse.run(study, MEMBER)
    killer.join()
    assert killed.is_set()
    assert any("Trying again" in line and line.startswith(MEMBER) for line in caplog.messages)
    assert study.read_failures() == []
    found, expected = contents(study.analyses(MEMBER)), contents(local.analyses(MEMBER))
    assert len(expected) > 3
    assert found == expected


def test_a_node_with_other_sources_is_refused(cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_executor, "sources_digest", lambda: "others")
    with pytest.raises(OntogenyError, match="has other sources of ontogeny than the driver"):
        RayExecutor(tmp_path, cluster.address).run([Job("any", pool_jobs.die)], Listener())


def test_what_a_cluster_does_not_have_is_not_waited_for(cluster: Any, tmp_path: Path) -> None:
    with pytest.raises(OntogenyError, match=r"A job takes 0.5 GPU .*, but the Ray cluster has 0"):
        RayExecutor(tmp_path, cluster.address, gpus=0.5).run([Job("any", pool_jobs.die)], Listener())


def test_a_cluster_that_is_not_there_is_named(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="Ray is not installed")
    with pytest.raises(OntogenyError, match=r"127\.0\.0\.1:1.* cannot be used: .*execution\.ray\.address"):
        RayExecutor(tmp_path, "127.0.0.1:1").run([Job("any", pool_jobs.die)], Listener())


def test_without_ray_the_way_to_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(OntogenyError, match=r"Ray is not installed\. Run pip install .*\[ray\]"):
        import_ray()


def test_the_params_choose_the_executor(tmp_path: Path) -> None:
    assert executor_of(ExecutionParams(), tmp_path) == LocalExecutor(None, "cpu")
    assert executor_of(ExecutionParams(n_jobs=3, device="cuda:1"), tmp_path, 2) == LocalExecutor(2, "cuda:1")
    settings = RayParams(address="auto", gpus_per_job=0.25)
    ray = ExecutionParams(executor="ray", device="cuda", ray=settings)
    assert executor_of(ray, tmp_path) == RayExecutor(tmp_path, "auto", None, 0.25)
    on_cpu = ExecutionParams(executor="ray", ray=settings)
    assert executor_of(on_cpu, tmp_path, 2) == RayExecutor(tmp_path, "auto", 2, 0.0)
