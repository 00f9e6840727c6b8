"""A Hugging Face hub on this machine: enough of its protocol for the real client, and faults on demand.

It serves model repositories with branches: the list of refs, trees, files with ETag and commit, large files (LFS) by a
redirect to another host, ranges. The hub is ``localhost``, the host of large files ``127.0.0.1``: the client must not
send its token there.
"""

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

CHUNK = 2**16
LARGE = (".safetensors", ".bin")


@dataclass
class Repository:
    """A model's repository: files by commit, commits by branch."""

    branches: dict[str, str] = field(default_factory=dict)
    commits: dict[str, dict[str, Path]] = field(default_factory=dict)
    gated: bool = False
    token: str | None = None
    """With it the repository is open to who sends it."""

    def commit(self, branch: str, folder: Path) -> str:
        """Make the files of `folder` what a branch holds."""
        files = {path.name: path for path in sorted(folder.iterdir())}
        text = "".join(f"{name} {sha256(path)}\n" for name, path in files.items())
        commit = hashlib.sha1(f"{branch}\n{text}".encode()).hexdigest()
        self.commits[commit] = files
        self.branches[branch] = commit
        return commit


@dataclass
class Fault:
    """Something that goes wrong with requests whose path holds `where`."""

    kind: str
    """cut, reset, status, stall, longer, tampered; announced: a large file is said to be larger than the tree lists"""
    where: str
    times: int = 1
    """How often; -1: always."""
    status: int = 503
    seconds: float = 0.0
    after: int = CHUNK
    """Bytes that arrive before."""


@dataclass(frozen=True)
class Asked:
    """A request that was made."""

    method: str
    path: str
    range: str | None
    authorised: bool


class Hub:
    """The server and what it holds."""

    def __init__(self, bytes_per_second: float | None = None) -> None:
        self.repositories: dict[str, Repository] = {}
        self.faults: list[Fault] = []
        self.asked: list[Asked] = []
        self.sent = 0
        """Bytes of large files."""
        self.bytes_per_second = bytes_per_second
        self.announces_xet = False
        """Large files are said to be there by Xet too, as on the real hub; only plain HTTP is spoken."""
        self.lock = threading.Lock()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.server.daemon_threads = True
        self._free_at = 0.0

    @property
    def port(self) -> int:
        return self.server.server_address[1]

    @property
    def endpoint(self) -> str:
        return f"http://localhost:{self.port}"

    def repository(self, name: str) -> Repository:
        return self.repositories.setdefault(name, Repository())

    def environment(self, home: Path) -> dict[str, str]:
        """For a process that is to use this hub."""
        return {"HF_ENDPOINT": self.endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_PROGRESS_BARS": "1"}

    def fault(self, path: str) -> Fault | None:
        """The fault that befalls a request."""
        with self.lock:
            for fault in self.faults:
                if fault.where in path and fault.times != 0:
                    fault.times -= 1
                    return fault
        return None

    def throttle(self, count: int) -> None:
        """Wait until so many bytes may have been sent."""
        if self.bytes_per_second is None:
            return
        with self.lock:
            self._free_at = max(self._free_at, time.monotonic()) + count / self.bytes_per_second
            wait = self._free_at - time.monotonic()
        if wait > 0:
            time.sleep(wait)

    def downloads(self, name: str) -> list[Asked]:
        """Requests for the content of large files whose path holds `name`."""
        return [asked for asked in self.asked if asked.method == "GET" and "/cdn/" in asked.path and name in asked.path]


@contextmanager
def serving(bytes_per_second: float | None = None) -> Iterator[Hub]:
    """A hub that runs while the block lasts."""
    hub = Hub(bytes_per_second)
    thread = threading.Thread(target=hub.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.server.shutdown()
        hub.server.server_close()
        thread.join()


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self._answer()

        def do_GET(self) -> None:
            self._answer()

        def _answer(self) -> None:
            url = urlsplit(self.path)
            path = unquote(url.path)
            token = self.headers.get("Authorization")
            hub.asked.append(Asked(self.command, path, self.headers.get("Range"), token is not None))
            fault = hub.fault(path)
            if fault is not None and fault.kind == "status":
                return self._refuse(fault.status, "", "It was asked for.")
            try:
                if path == "/api/models":
                    return self._list(parse_qs(url.query))
                if path.startswith("/api/models/"):
                    return self._api(path.removeprefix("/api/models/"))
                if path.startswith("/cdn/"):
                    return self._content(path, fault)
                name, _, rest = path.removeprefix("/").partition("/resolve/")
                revision, _, file = rest.partition("/")
                return self._resolve(name, revision, file, token, fault)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True

        def _list(self, query: dict[str, list[str]]) -> None:
            author = query.get("author", [""])[0]
            names = [name for name in hub.repositories if name.startswith(author)]
            self._json([{"id": name, "modelId": name, "_id": name} for name in names])

        def _api(self, path: str) -> None:
            owner, name, what, *rest = path.split("/")
            repository = hub.repositories.get(f"{owner}/{name}")
            if repository is None:
                return self._refuse(401, "RepoNotFound", "Repository not found")
            if what == "refs":
                branches = [
                    {"name": branch, "ref": f"refs/heads/{branch}", "targetCommit": commit}
                    for branch, commit in repository.branches.items()
                ]
                return self._json({"branches": branches, "tags": [], "converts": []})
            revision = "/".join(rest)
            commit = repository.branches.get(revision, revision)
            if commit not in repository.commits:
                return self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            files = repository.commits[commit]
            if what == "tree":
                return self._json([_entry(name, path) for name, path in files.items()])
            siblings = [{"rfilename": name} for name in files]
            self._json({"id": f"{owner}/{name}", "modelId": f"{owner}/{name}", "sha": commit, "siblings": siblings})

        def _resolve(self, name: str, revision: str, file: str, token: str | None, fault: Fault | None) -> None:
            repository = hub.repositories.get(name)
            if repository is None:
                return self._refuse(401, "RepoNotFound", "Repository not found")
            if repository.gated and (repository.token is None or token != f"Bearer {repository.token}"):
                return self._refuse(403, "GatedRepo", "Access to this repository is restricted")
            commit = repository.branches.get(revision, revision)
            if commit not in repository.commits:
                return self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            headers = {"X-Repo-Commit": commit}
            if file not in repository.commits[commit]:
                return self._refuse(404, "EntryNotFound", "Entry not found", headers)
            path = repository.commits[commit][file]
            if not file.endswith(LARGE):
                return self._send(path.read_bytes(), headers | {"ETag": f'"{git_hash(path)}"'})
            size, digest = path.stat().st_size, sha256(path)
            if fault is not None and fault.kind == "announced":
                size += 4
            headers |= {"X-Linked-Size": str(size), "X-Linked-Etag": f'"{digest}"', "ETag": f'"{digest}"'}
            if hub.announces_xet:
                headers |= {"X-Xet-Hash": digest, "X-Xet-Refresh-Route": f"{hub.endpoint}/api/xet-read-token"}
            headers["Location"] = f"http://127.0.0.1:{hub.port}/cdn/{name}/{revision}/{file}"
            self._send(b"", headers, status=302)

        def _content(self, path: str, fault: Fault | None) -> None:
            owner, name, revision, file = path.removeprefix("/cdn/").split("/")
            repository = hub.repositories[f"{owner}/{name}"]
            source = repository.commits[repository.branches.get(revision, revision)][file]
            content = source.read_bytes()
            if fault is not None and fault.kind == "tampered":
                content = content[:-1] + bytes([content[-1] ^ 1])
            if fault is not None and fault.kind == "longer":
                content += b"more"
            start = 0
            if (wanted := self.headers.get("Range")) is not None:
                start = int(wanted.removeprefix("bytes=").split("-")[0])
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(content) - start))
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            self.end_headers()
            if self.command == "HEAD":
                return
            for place in range(start, len(content), CHUNK):
                if fault is not None and place - start >= fault.after and fault.kind in ("cut", "reset", "stall"):
                    if fault.kind == "stall":
                        time.sleep(fault.seconds)
                    else:
                        self._hang_up(hard=fault.kind == "reset")
                        return
                part = content[place : place + CHUNK]
                hub.throttle(len(part))
                self.wfile.write(part)
                hub.sent += len(part)

        def _hang_up(self, hard: bool) -> None:
            import socket
            import struct

            self.wfile.flush()
            if hard:
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True

        def _json(self, value: object) -> None:
            self._send(json.dumps(value).encode(), {"Content-Type": "application/json"})

        def _refuse(self, status: int, code: str, message: str, headers: dict[str, str] | None = None) -> None:
            self._send(b"{}", {"X-Error-Code": code, "X-Error-Message": message} | (headers or {}), status=status)

        def _send(self, body: bytes, headers: dict[str, str], status: int = 200) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

    return Handler


def _entry(name: str, path: Path) -> dict[str, object]:
    size = path.stat().st_size
    entry: dict[str, object] = {"type": "file", "oid": git_hash(path), "size": size, "path": name}
    if name.endswith(LARGE):
        entry["lfs"] = {"oid": sha256(path), "size": size, "pointerSize": 134}
    return entry


_KNOWN: dict[tuple[str, int, int, str], str] = {}


def _hashed(path: Path, kind: str, prefix: bytes = b"") -> str:
    """Of a file that has not changed since it was hashed last."""
    state = path.stat()
    key = (str(path), state.st_size, state.st_mtime_ns, kind)
    if key not in _KNOWN:
        digest = hashlib.new(kind, prefix)
        digest.update(path.read_bytes())
        _KNOWN[key] = digest.hexdigest()
    return _KNOWN[key]


def sha256(path: Path) -> str:
    """Of a file's content: the identity of large files."""
    return _hashed(path, "sha256")


def git_hash(path: Path) -> str:
    """Git's object id of a file's content: the identity of small files."""
    return _hashed(path, "sha1", b"blob %d\0" % path.stat().st_size)
