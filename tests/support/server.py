"""An MLflow server for a test, and a PostgreSQL server that it may keep its runs in."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ontogeny.tracking import Store

_START_S = 600


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@dataclass
class Server:
    """`mlflow server` on a port; it can be killed and started again."""

    backend: str
    """Address of its database."""
    artifacts: Path
    """Where it keeps files; clients only know it by name."""
    port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def store(self) -> Store:
        """The store that clients see."""
        return Store(f"http://127.0.0.1:{self.port}")

    def start(self) -> None:
        """Start it and wait until it answers."""
        command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", self.backend, "--workers", "1",
                   "--port", str(self.port), "--artifacts-destination", str(self.artifacts)]  # fmt: skip
        environment = os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true"}
        self.process = subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        _wait(lambda: self.store.unreachable() is None, self.process)

    def kill(self) -> None:
        """SIGKILL, with all that it started."""
        if self.process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


@contextmanager
def served(backend: str, artifacts: Path, port: int | None = None) -> Iterator[Server]:
    """An MLflow server that answers; killed at the end."""
    server = Server(backend, artifacts, port or free_port())
    try:
        server.start()
        yield server
    finally:
        server.kill()


def lacks_postgres() -> str:
    """Why PostgreSQL cannot be used here; empty if it can."""
    if _program("initdb") is None:
        return "PostgreSQL's server is not installed (Debian: apt-get install postgresql)"
    try:
        import psycopg2  # noqa: F401
    except ImportError:
        return "psycopg2 is not installed (pip install -e '.[test]')"
    if os.getuid() == 0 and _user() is None:
        return "PostgreSQL refuses to run as root, and there is no user `postgres` or `nobody`"
    return ""


@contextmanager
def postgres() -> Iterator[str]:
    """Address of an empty database on a PostgreSQL server of its own, run by a user that is not root.

    Its data lies outside pytest's folders: those are 0700, and another user could not go through them.
    """
    folder, port, user = Path(tempfile.mkdtemp(prefix="ontogeny-postgres-")), free_port(), _user()
    if user is not None:
        os.chown(folder, user.pw_uid, user.pw_gid)
    data = folder / "data"
    try:
        _as(user, folder, "initdb", "-D", data, "-U", "ontogeny", "--auth=trust", "-E", "UTF8", "--no-sync")
        command = [_program("postgres"), "-D", data, "-k", folder, "-h", "127.0.0.1", "-p", str(port), "-F"]
        with subprocess.Popen(
            command, user=None if user is None else user.pw_uid, group=None if user is None else user.pw_gid,
            cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=_plain(folder),
        ) as process:  # fmt: skip
            try:
                address = f"ontogeny@127.0.0.1:{port}"
                _wait(lambda: _answers(f"postgresql://{address}/postgres"), process)
                _as(user, folder, "createdb", "-h", "127.0.0.1", "-p", str(port), "-U", "ontogeny", "mlflow")
                yield f"postgresql+psycopg2://{address}/mlflow"
            finally:
                process.send_signal(signal.SIGQUIT)
    finally:
        shutil.rmtree(folder)


def _wait(ready: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_S
    while not ready():
        assert process.poll() is None, "it ended before it answered"
        assert time.monotonic() < deadline, "it never answered"
        time.sleep(0.2)


def _answers(address: str) -> bool:
    import psycopg2

    try:
        with closing(psycopg2.connect(address, connect_timeout=2)):
            return True
    except psycopg2.OperationalError:
        return False


def _user() -> pwd.struct_passwd | None:
    """Whom PostgreSQL runs as: ourselves (None) unless we are root."""
    if os.getuid() != 0:
        return None
    known = {entry.pw_name: entry for entry in pwd.getpwall()}
    return known.get("postgres") or known.get("nobody")


def _as(user: pwd.struct_passwd | None, folder: Path, program: str, *arguments: str | Path) -> None:
    who = {} if user is None else {"user": user.pw_uid, "group": user.pw_gid}
    done = subprocess.run(
        [str(_program(program)), *map(str, arguments)], cwd=folder, env=_plain(folder), capture_output=True, text=True,
        check=False, **who,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def _plain(folder: Path) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "HOME": str(folder), "LC_ALL": "C"}


def _program(name: str) -> str | None:
    """Debian keeps the server's programs out of PATH."""
    homes = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return shutil.which(name) or shutil.which(name, path=os.pathsep.join(map(str, homes)))
