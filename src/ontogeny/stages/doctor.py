"""What a study needs on this machine: `ontogeny doctor`.

A *problem* stops a study or makes it refuse; *advice* does not. Nothing is changed, and nothing is sent.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Final, Literal, NamedTuple

from ontogeny.core.errors import OntogenyError
from ontogeny.execution.places import Places, places_at
from ontogeny.params import ExecutionParams, Params, load_params

State = Literal["ok", "advice", "problem"]
_GIB: Final = 2**30
_DISK_ADVICE_GIB: Final = 5.0
_DISK_PROBLEM_GIB: Final = 1.0
_DVC_TIMEOUT_S: Final = 300


class Finding(NamedTuple):
    """One line of the report."""

    what: str
    state: State
    found: str
    todo: str = ""
    """What to do; empty where nothing is."""


def examine(folder: Path, profile: str | None, quiet: Mapping[str, str]) -> list[Finding]:
    """Look at everything.

    Args:
        folder: the project's root.
        profile: the profile to be run, none for the project's own study.
        quiet: environment variables, and the values that keep telemetry off.
    """
    places = places_at(folder)
    chosen = places if profile is None else places.profile(profile)
    params, finding = _params(places, profile)
    return [
        *_packages(places.project),
        finding,
        _git(places.project),
        _dvc_settings(places.project),
        _dvc_state(chosen),
        _store(places.project, params),
        _device(params),
        _executor(params),
        _hub(params),
        _disk(places.project),
        _memory(),
        _running(chosen),
        _telemetry(quiet),
    ]


def print_findings(findings: list[Finding]) -> bool:
    """A line each; whether none is a problem."""
    from rich.console import Console
    from rich.table import Table

    colours = {"ok": "green", "advice": "yellow", "problem": "bold red"}
    table = Table(box=None, show_header=False, pad_edge=False)
    for item in findings:
        state = f"[{colours[item.state]}]{item.state}[/]"
        table.add_row(state, item.what, item.found + (f"\n-> {item.todo}" if item.todo else ""))
    console = Console() if sys.stdout.isatty() else Console(width=150)
    console.print(table, highlight=False)
    problems = sum(item.state == "problem" for item in findings)
    advice = sum(item.state == "advice" for item in findings)
    console.print(f"Problems: {problems}. Advice: {advice}.", highlight=False)
    return problems == 0


def _params(places: Places, profile: str | None) -> tuple[Params | None, Finding]:
    from ontogeny.stages.check import check_params
    from ontogeny.stages.reproduce import profile_file

    try:
        file = places.project / "params.yaml" if profile is None else profile_file(places.project, profile)
        params = load_params(file)
        check_params(params)
    except OntogenyError as error:
        return None, Finding("params", "problem", str(error), "correct it; `git diff params.yaml` shows what changed")
    size = f"{len(params.suite.members)} models, {len(params.datasets.tasks)} tasks"
    return params, Finding("params", "ok", f"{file.relative_to(places.project)}: {size}")


def _packages(project: Path) -> Iterator[Finding]:
    """What we need is there; what is pinned has the pinned version."""
    from packaging.requirements import Requirement

    lacking, seen = [], 0
    for text in metadata.requires("ontogeny") or ():
        needed = Requirement(text)
        if needed.marker is not None and not needed.marker.evaluate({"extra": ""}):
            continue
        seen += 1
        have = _version(needed.name)
        if have is None or not needed.specifier.contains(have, prereleases=True):
            lacking.append(f"{needed} (there is {have or 'none'})")
    install = "make study installs them, or: pip install -c constraints.txt -e ."
    if lacking:
        yield Finding("packages", "problem", f"lacking: {', '.join(lacking)}", install)
    else:
        python = ".".join(map(str, sys.version_info[:3]))
        yield Finding("packages", "ok", f"Python {python}, all {seen} packages that are needed")
    yield _pins(project / "constraints.txt", install)


def _pins(constraints: Path, install: str) -> Finding:
    if not constraints.exists():
        return Finding("versions", "advice", f"{constraints.name} is missing", "`git checkout constraints.txt`")
    lines = constraints.read_text(encoding="utf-8").splitlines()
    pins = [line.split("==") for line in lines if "==" in line and not line.startswith("#")]
    installed = [(name, pinned, have) for name, pinned in pins if (have := _version(name)) is not None]
    others = [f"{name} {have} (pinned {pinned})" for name, pinned, have in installed if have.split("+")[0] != pinned]
    if others:
        more = f" and {len(others) - 6} more" if len(others) > 6 else ""
        text = f"{len(others)} of {len(installed)} differ from constraints.txt: {', '.join(others[:6])}{more}"
        return Finding("versions", "advice", text, f"hashes may differ from those of others; {install}")
    return Finding("versions", "ok", f"{len(installed)} packages as in constraints.txt")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git(project: Path) -> Finding:
    done = _run(["git", "-C", str(project), "status", "--porcelain"])
    if done is None:
        return Finding("git", "problem", "git is missing", "install it (Debian: apt-get install git)")
    if done.returncode != 0:
        return Finding("git", "problem", f"{project} is no git repository, which DVC needs", "clone the project")
    changed = [line[3:] for line in done.stdout.splitlines()]
    if changed:
        shown = ", ".join(changed[:4]) + (" ..." if len(changed) > 4 else "")
        return Finding("git", "ok", f"{len(changed)} files differ from HEAD: {shown}")
    return Finding("git", "ok", "as in HEAD")


def _dvc_settings(project: Path) -> Finding:
    if not (project / ".dvc" / "config").exists():
        return Finding("DVC", "problem", ".dvc/config is missing", "`git checkout .dvc`")
    done = _run([sys.executable, "-m", "dvc", "config", "--list"], project)
    settings = dict(line.split("=", 1) for line in (done.stdout if done else "").splitlines() if "=" in line)
    if settings.get("core.analytics") != "false":
        text = "DVC would send usage data when it is called by hand"
        return Finding("DVC", "advice", text, "`dvc config core.analytics false`")
    remotes = [name.split(".")[1] for name in settings if name.startswith("remote.") and name.endswith(".url")]
    return Finding("DVC", "ok", f"{_version('dvc')}, remotes: {', '.join(remotes) or 'none'}")


def _dvc_state(places: Places) -> Finding:
    """Which stages a study would run now."""
    if not (places.study / "dvc.lock").exists():
        return Finding("results", "ok", f"nothing was run in {_here(places.study)} yet")
    done = _run([sys.executable, "-m", "dvc", "status", "--json"], places.study)
    if done is None or done.returncode != 0:
        reason = "no answer" if done is None else (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        return Finding("results", "problem", f"`dvc status` fails: {reason}", "run `dvc status` there for the whole")
    stages = json.loads(done.stdout or "{}")
    if stages:
        text = f"stages that a study would run: {', '.join(list(stages)[:8])}{' ...' if len(stages) > 8 else ''}"
        return Finding("results", "ok", text)
    return Finding("results", "ok", "up to date")


def _store(project: Path, params: Params | None) -> Finding:
    from ontogeny.tracking import health_of, open_store

    try:
        health = health_of(open_store(project, None if params is None else params.tracking.uri))
    except OntogenyError as error:
        return Finding("MLflow", "problem", str(error))
    anew = "move the file away and run `ontogeny publish`, which writes it anew from data/"
    states: dict[str, tuple[State, str]] = {
        "ready": ("ok", ""),
        "new": ("ok", ""),
        "older": ("ok", "the next publish brings a SQLite file up to date; for another database: `mlflow db upgrade`"),
        "newer": ("problem", f"install that MLflow, or {anew}"),
        "unusable": ("problem", f"choose another store (MLFLOW_TRACKING_URI, tracking.uri), or {anew}"),
        "read_only": ("advice", "a study keeps its results in data/; publish to a store that can be written to"),
        "unreachable": ("advice", "a study runs all the same and exits with 3; start the server, `ontogeny publish`"),
    }
    state, todo = states[health.state]
    return Finding("MLflow", state, health.found, todo)


def _device(params: Params | None) -> Finding:
    import torch

    from ontogeny.execution.devices import check_device

    wanted = "cpu" if params is None or params.execution.executor == "ray" else params.execution.device
    try:
        check_device(wanted)
    except OntogenyError as error:
        found, _, todo = str(error).partition(". ")
        return Finding("device", "problem", found, todo)
    cards = [torch.cuda.get_device_name(place) for place in range(torch.cuda.device_count())]
    return Finding("device", "ok", f"{wanted}; GPUs that torch sees: {', '.join(cards) or 'none'}")


def _executor(params: Params | None) -> Finding:
    """What jobs run on."""
    from ontogeny.execution.devices import visible_gpus, worker_environments
    from ontogeny.execution.ray_executor import reach

    settings, version = (params.execution if params is not None else ExecutionParams()), _version("ray")
    if settings.executor == "local":
        gpus = visible_gpus() if settings.device == "cuda" else ()
        workers = len(worker_environments(settings.device, settings.n_jobs, gpus))
        ray = f"Ray {version} is installed" if version else "Ray is not installed, and not needed"
        return Finding("executor", "ok", f"local, {workers} workers; {ray}")
    if version is None:
        todo = "pip install -c constraints.txt -e '.[ray]', or set execution.executor: local"
        return Finding("executor", "problem", "execution.executor is ray, but Ray is not installed", todo)
    address = settings.ray.address or os.environ.get("RAY_ADDRESS")
    try:
        reach(address)
    except OSError as error:
        todo = "start one (`ray start --head`), or correct execution.ray.address"
        return Finding("executor", "problem", f"no Ray cluster answers at {address}: {error}", todo)
    return Finding("executor", "ok", f"Ray {version}, {address or 'started on this machine for each stage'}")


def _hub(params: Params | None) -> Finding:
    if params is None or params.suite.source == "ladder":
        return Finding("model hub", "ok", "not needed: this suite is trained here")
    home = Path(os.environ.get("HF_HOME", "~/.cache/huggingface")).expanduser()
    offline = os.environ.get("HF_HUB_OFFLINE", "0").lower() in ("1", "true", "yes", "on")
    place = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    text = f"{'offline' if offline else place}; downloads are kept in {home}"
    if offline:
        todo = "only what was downloaded before can be used; unset HF_HUB_OFFLINE to fetch more"
        return Finding("model hub", "advice", text, todo)
    return Finding("model hub", "ok", text)


def _disk(project: Path) -> Finding:
    free = {folder: shutil.disk_usage(folder).free / _GIB for folder in (project, Path(tempfile.gettempdir()))}
    text = ", ".join(f"{size:.1f} GiB free at {folder}" for folder, size in free.items())
    least = min(free.values())
    if least < _DISK_PROBLEM_GIB:
        return Finding("disk", "problem", text, "make room; `make clean` removes results, `dvc gc -w` old ones")
    if least < _DISK_ADVICE_GIB:
        return Finding("disk", "advice", text, "enough for the default study; larger suites need more")
    return Finding("disk", "ok", text)


def _memory() -> Finding:
    import psutil

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    free = psutil.virtual_memory().available / _GIB
    state: State = "ok" if free >= 2 else "advice"
    todo = "" if state == "ok" else "set execution.n_jobs: 1, or close other programs"
    return Finding("machine", state, f"{cores} cores, {free:.1f} GiB of memory available", todo)


def _running(places: Places) -> Finding:
    """Locks that someone holds now; a lock file without a holder says nothing."""
    import fcntl

    held = []
    for path in sorted(places.lock("x").parent.glob("*.lock")):
        with path.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                held.append(file.read(200).decode(errors="replace").strip() or path.stem)
    if held:
        return Finding("at work", "advice", ", ".join(held), "a second study of the same folder waits for it")
    return Finding("at work", "ok", "no study is running here")


def _telemetry(quiet: Mapping[str, str]) -> Finding:
    loud = [f"{name}={os.environ[name]}" for name, value in quiet.items() if os.environ.get(name, value) != value]
    if loud:
        return Finding("telemetry", "advice", f"set by you: {', '.join(loud)}", "unset these to keep it off")
    return Finding("telemetry", "ok", f"off ({', '.join(quiet)})")


def _run(command: list[str], folder: Path | None = None) -> subprocess.CompletedProcess[str] | None:
    """None where the program is missing or does not end."""
    try:
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=_DVC_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired):
        return None


def _here(folder: Path) -> str:
    return os.path.relpath(folder)
