"""A clone of the project in a temporary folder, in which the `tiny` profile runs end to end."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path


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

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        """Start a command in the clone, in a process group of its own."""
        with (self.root / ".cache" / "log.txt").open("ab") as log:
            return subprocess.Popen(
                command, cwd=self.root, env=self.environment, stdout=log, stderr=log, start_new_session=True
            )
