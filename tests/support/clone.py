"""A clone of the project in a temporary folder, in which the `tiny` profile runs end to end."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
import yaml

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Clone:
    """The project's files as they are now, committed in a repository of their own."""

    root: Path

    @property
    def profile(self) -> Path:
        """The folder of the profile `tiny`."""
        return self.root / ".cache" / "studies" / "tiny"

    @property
    def environment(self) -> dict[str, str]:
        """The clone's sources, our interpreter's scripts, and no store but the clone's own."""
        scripts = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        ours = {"PATH": scripts, "PYTHONPATH": str(self.root / "src"), "DVC_NO_ANALYTICS": "1"}
        return {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"} | ours

    def run(self, *command: str, at: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the clone."""
        return subprocess.run(
            command,
            cwd=at or self.root,
            env=self.environment | environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def start(self, *command: str, **environment: str) -> subprocess.Popen[bytes]:
        """Start a command in the clone, in a process group of its own; what it says is added to `log`."""
        self.log.parent.mkdir(exist_ok=True)
        with self.log.open("ab") as log:
            return subprocess.Popen(
                command, cwd=self.root, env=self.environment | environment, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip

    @property
    def log(self) -> Path:
        """Output of what was started."""
        return self.root / ".cache" / "log.txt"


def clone_project(root: Path) -> Clone:
    """Copy the project's files as they are now into `root`, and commit them there."""
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-co", "--exclude-standard"], capture_output=True, text=True, check=True
    )
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file() and name != "dvc.lock":
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, root / name)
    git = ["git", "-C", str(root), "-c", "user.name=test", "-c", "user.email=test@localhost"]
    for arguments in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "All"]):
        subprocess.run([*git, *arguments], check=True, capture_output=True)
    return Clone(root)


def lock(folder: Path) -> dict[str, object]:
    """Hashes of every stage's dependencies and outputs."""
    stages: dict[str, object] = yaml.safe_load((folder / "dvc.lock").read_text())["stages"]
    return stages


def eventually(condition: Callable[[], object], seconds: float = 120.0) -> None:
    """Wait until it holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.05)


def ours(clone: Clone) -> list[psutil.Process]:
    """Living processes that work in the clone."""
    found = []
    for process in psutil.process_iter():
        try:
            inside = Path(process.cwd()).is_relative_to(clone.root)
            if inside and process.status() != psutil.STATUS_ZOMBIE and process.pid != os.getpid():
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found
