"""Locks and lifelines between real processes."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from ontogeny.execution.locks import held

HOLD = """
import sys, time
from pathlib import Path
from ontogeny.execution.locks import held
with held(Path(sys.argv[1]), "the first run"):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""
CHILD = """
import os, sys, time
from ontogeny.execution.lifeline import die_with_parent
die_with_parent(int(sys.argv[1]))
print(os.getpid(), flush=True)
time.sleep(60)
"""
PARENT = f"""
import os, subprocess, sys
parent = os.getpid() if sys.argv[1] == "true" else 1
child = subprocess.Popen([sys.executable, "-c", {CHILD!r}, str(parent)])
print(child.wait(), flush=True)
"""


def eventually(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return condition()


def test_who_waits_is_told_for_whom(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lock = tmp_path / "stage.lock"
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(lock), "0.5"], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with held(lock, "the second run"):
        assert holder.wait(1) == 0
    assert f"Waiting for the first run (process {holder.pid})" in caplog.text
    assert not lock.exists()


def test_a_killed_holder_holds_nothing(tmp_path: Path) -> None:
    lock = tmp_path / "stage.lock"
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(lock), "60"], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    holder.kill()
    holder.wait()
    assert lock.exists()
    with held(lock, "the second run"):
        assert "the second run" in lock.read_text()


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
def test_a_child_dies_with_its_killed_parent() -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT, "true"], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    assert child.is_running()
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    assert eventually(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
def test_a_child_whose_parent_is_gone_already_ends_at_once() -> None:
    parent = subprocess.run([sys.executable, "-c", PARENT, "false"], capture_output=True, text=True, check=True)
    assert parent.stdout == f"{-signal.SIGKILL}\n"
