"""`ontogeny plan`: what a study would take, and whether it fits on this machine; nothing is downloaded or computed.

Of a study of which nothing is done yet. Time is measured but for pictures and MLflow, whose cost a run is that of the
machine of docs/benchmarks.md; corpus, data sets and start-up, a minute or two, are not in it, nor is waiting for
downloads.
"""

from __future__ import annotations

import math
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ontogeny.core.errors import OntogenyError
from ontogeny.execution.devices import visible_gpus, worker_environments
from ontogeny.models.checkpoints import TrainedSource
from ontogeny.models.outline import Outline, outline_of
from ontogeny.params import CheckpointsParams, split_member
from ontogeny.planning.effort import Effort, checkpoint_effort, transfer_effort, tuning_effort
from ontogeny.planning.footprint import COPIES, Memory, record_bytes, shared_memory, tuning_memory, worker_memory
from ontogeny.stages.study import Study
from ontogeny.stages.transfer import mates_of
from ontogeny.tasks import get_task

if TYPE_CHECKING:
    from rich.table import Table

    from ontogeny.planning.calibration import Calibration

GB = 1e9
PUBLISHED = 0.2
"""Seconds a run: pictures for MLflow and for data/figures, and writing them."""
LINE = 50e6
"""Bytes a second of the connection that a download's time is told for."""


@dataclass(frozen=True)
class MemberPlan:
    """What one member takes."""

    member: str
    checkpoints: int
    stored: int
    """Bytes of all its checkpoints."""
    largest: int
    """Bytes of the largest of them."""
    missing: int
    """Bytes that are to be downloaded."""
    outline: Outline
    effort: Effort
    """Of its analyses."""
    transfer: Effort
    tuning: Effort
    memory: Memory
    """Of a worker that analyses it."""
    records: int
    """Bytes of its results, in all copies."""


@dataclass(frozen=True)
class Plan:
    """What a study takes."""

    members: tuple[MemberPlan, ...]
    workers: int
    memory: Memory
    """Of all workers together."""
    disk: Mapping[Path, int]
    """Folder -> bytes that it will hold more at the peak."""


class Machine(NamedTuple):
    """What there is, in bytes."""

    memory: int
    device_memory: int | None
    """Of the smallest GPU in use; None: the device is the host."""
    disk: Mapping[Path, int]
    """Folder -> free on its file system."""


class Misfit(NamedTuple):
    """Something that does not fit."""

    what: str
    todo: str


class Times(NamedTuple):
    """Seconds, measured and multiplied."""

    training: float
    analyses: float
    transfer: float
    tuning: float
    publishing: float
    """Not measured: `PUBLISHED`."""


def plan_study(study: Study) -> Plan:
    """From the params and the shapes of the models.

    Raises:
        OntogenyError: the suite cannot be had, or its models are of a family that the engine does not describe.
    """
    params, source = study.params, study.source
    tasks = params.datasets.tasks
    examples = {task: params.datasets.sizes.get(task, get_task(task).size) for task in tasks}
    members = tuple(_plan_member(study, member, examples) for member in params.suite.members)
    workers = _workers(study)
    records = sum(member.records for member in members)
    disk = {study.places.project: records}
    stored, largest = sum(m.stored for m in members), max(m.largest for m in members)
    if isinstance(source, TrainedSource):
        disk[study.places.project] += COPIES * stored + 3 * sum(m.largest for m in members)
    elif params.suite.source == "hub":
        missing, budget = sum(m.missing for m in members), params.execution.disk_gb
        kept = missing if budget is None else min(missing, int(budget * GB) + largest)
        disk[hub_folder()] = disk.get(hub_folder(), 0) + kept
    return Plan(members, workers, shared_memory(workers, [m.memory for m in members for _ in range(workers)]), disk)


def _plan_member(study: Study, member: str, examples: Mapping[str, int]) -> MemberPlan:
    params, source = study.params, study.source
    outline, forecast = outline_of(source.config(member)), source.forecast(member)
    settings, text = (
        params.analyse,
        isinstance(source, TrainedSource) or getattr(params.corpus, "text", None) is not None,
    )
    effort, records = Effort(), 0
    for place, each in enumerate(forecast):
        baselines = place % settings.baselines.every == 0 or place == len(forecast) - 1
        effort += checkpoint_effort(
            outline.architecture, examples, settings, each.analyses, baselines=baselines, text=text
        )
        records += record_bytes(outline.architecture, len(examples), each.analyses)
    circuits = sum("circuits" in each.analyses for each in forecast)
    mates = mates_of(member, params.suite.members)
    pairs, accelerator = max(examples.values()), params.execution.device not in ("cpu", "mps")
    memory = worker_memory(
        outline,
        pairs,
        settings,
        accelerator=accelerator,
        circuits=any(each.analyses != ("behaviour",) for each in forecast),
    )
    tuned = sum(checkpoint.partition("@")[0] == member for checkpoint in params.tune.checkpoints)
    return MemberPlan(
        member=member,
        checkpoints=len(forecast),
        stored=sum(each.bytes for each in forecast),
        largest=max(each.bytes for each in forecast),
        missing=sum(each.missing for each in forecast),
        outline=outline,
        effort=effort,
        transfer=transfer_effort(examples, min(circuits, params.transfer.anchors), len(mates), params.transfer),
        tuning=tuning_effort(outline.architecture.graph, examples, settings, params.tune).times(tuned),
        memory=memory.or_more(tuning_memory(outline, pairs, settings, params.tune, accelerator=accelerator))
        if tuned
        else memory,
        records=records,
    )


def _workers(study: Study) -> int:
    """Jobs at once; of a Ray cluster, as many as this machine would do unless the params say."""
    settings = study.params.execution
    gpus = visible_gpus() if settings.device == "cuda" else ()
    return len(worker_environments(settings.device, settings.n_jobs, gpus))


def machine_of(study: Study, plan: Plan) -> Machine:
    """What there is here."""
    import psutil

    device = study.params.execution.device
    disk = {folder: shutil.disk_usage(_existing(folder)).free for folder in plan.disk}
    memory = int(psutil.virtual_memory().available)
    if not device.startswith("cuda"):
        return Machine(memory, None, disk)
    import torch

    places = [int(device[5:])] if ":" in device else range(torch.cuda.device_count())
    return Machine(memory, min((torch.cuda.mem_get_info(place)[0] for place in places), default=0), disk)


def misfits(study: Study, plan: Plan, machine: Machine) -> list[Misfit]:
    """What does not fit, and the param to change; of a Ray cluster, each node has memory of its own."""
    memory = [] if study.params.execution.executor == "ray" else _memory_misfits(study, plan, machine)
    return memory + _disk_misfits(study, plan, machine)


def _memory_misfits(study: Study, plan: Plan, machine: Machine) -> list[Misfit]:
    gpus = max(1, len(visible_gpus())) if study.params.execution.device == "cuda" else 1
    on_gpu, found = -(-plan.workers // gpus) * plan.memory.device, []
    if plan.memory.host > machine.memory:
        largest = max(member.memory.host for member in plan.members)
        what = f"memory: {_size(plan.memory.host)} of {_size(machine.memory)} available"
        found.append(Misfit(what, _fewer(plan, min(plan.workers - 1, machine.memory // largest))))
    if machine.device_memory is not None and on_gpu > machine.device_memory:
        what = f"memory of a GPU: {_size(on_gpu)} of {_size(machine.device_memory)} free"
        found.append(Misfit(what, _fewer(plan, gpus if plan.memory.device <= machine.device_memory else 0)))
    return found


def _fewer(plan: Plan, workers: int) -> str:
    """Fewer workers; if not even one fits, smaller models."""
    if workers > 0:
        return f"set execution.n_jobs: {workers}"
    largest = max(plan.members, key=lambda member: member.memory)
    return f"take {largest.member} out of suite.members, lower datasets.sizes, or use a machine with more memory"


def _disk_misfits(study: Study, plan: Plan, machine: Machine) -> list[Misfit]:
    """By file system: folders may share one."""
    together: dict[int, list[Path]] = {}
    for folder in plan.disk:
        together.setdefault(_existing(folder).stat().st_dev, []).append(folder)
    found = []
    for folders in together.values():
        needed, free = sum(plan.disk[folder] for folder in folders), min(machine.disk[folder] for folder in folders)
        if needed > free:
            where = " and ".join(str(folder) for folder in folders)
            what = f"disk at {where}: {_size(needed)} of {_size(free)} free"
            found.append(Misfit(what, _smaller(study, plan, folders, needed - free)))
    return found


def _smaller(study: Study, plan: Plan, folders: Sequence[Path], excess: int) -> str:
    """What takes less disk."""
    if study.params.suite.source == "hub" and hub_folder() in folders:
        largest = max(member.largest for member in plan.members)
        budget = plan.disk[hub_folder()] - excess - largest
        if budget >= largest:
            return f"set execution.disk_gb: {budget / GB:.1f}, or less"
        return "set HF_HOME to a larger disk, or take the largest models out of suite.members"
    if isinstance(study.params.checkpoints, CheckpointsParams):
        return "lower checkpoints.per_octave or checkpoints.even_count, or take models out of suite.members"
    return "name fewer steps in checkpoints.coverage, or move the project to a larger disk"


def times_of(study: Study, plan: Plan) -> Times:
    """Measure on this device (seconds), and multiply."""
    from ontogeny.planning.calibration import as_a_worker, calibrate

    training, analyses, transfer, tuning = [0.0], 0.0, 0.0, 0.0
    by_shape: dict[Outline, Calibration] = {}
    with as_a_worker():
        for member in plan.members:
            if member.outline not in by_shape:
                config = study.source.config(member.member)
                by_shape[member.outline] = calibrate(
                    config, member.outline, study.params.analyse, study.params.execution.device
                )
            measured = by_shape[member.outline]
            one = measured.seconds(member.effort) / member.checkpoints + measured.load
            analyses += one * math.ceil(member.checkpoints / plan.workers)
            transfer += (
                measured.seconds(member.transfer) + study.params.transfer.anchors * measured.load
            ) / plan.workers
            tuning += measured.seconds(member.tuning) / plan.workers
            training.append(_training_seconds(study, member))
    runs = sum(member.checkpoints for member in plan.members) * len(study.params.datasets.tasks)
    return Times(side_by_side(training, plan.workers), analyses, transfer, tuning, PUBLISHED * runs)


def _training_seconds(study: Study, member: MemberPlan) -> float:
    from ontogeny.planning.calibration import seconds_per_step

    settings = study.params.checkpoints
    if not isinstance(settings, CheckpointsParams):
        return 0.0
    scale, vocabulary = settings.scales[split_member(member.member)[0]], member.outline.architecture.vocab
    return settings.steps * seconds_per_step(scale, settings, vocabulary, study.params.execution.device)


def side_by_side(seconds: Sequence[float], workers: int) -> float:
    """When the last of some jobs ends, the longest started first, each on the worker that is free first."""
    ends = [0.0] * workers
    for job in sorted(seconds, reverse=True):
        ends[ends.index(min(ends))] += job
    return max(ends)


def hub_folder() -> Path:
    """Where downloads go."""
    from ontogeny.models.hub_cache import HubCache

    return HubCache(None).hub


def check_fits(study: Study) -> None:
    """Refuse a study that does not fit on this machine.

    Raises:
        OntogenyError: it does not; says what, and the param to change.
    """
    plan = plan_study(study)
    found = misfits(study, plan, machine_of(study, plan))
    if found:
        lines = "\n".join(f"  {misfit.what}: {misfit.todo}" for misfit in found)
        raise OntogenyError(f"This study does not fit (`ontogeny plan` shows all; `--anyway` starts it):\n{lines}")


def print_plan(study: Study) -> bool:
    """Print it all; whether it fits."""
    from rich.console import Console

    plan = plan_study(study)
    machine = machine_of(study, plan)
    found = misfits(study, plan, machine)
    console = Console(highlight=False, soft_wrap=True) if sys.stdout.isatty() else Console(width=150, highlight=False)
    console.print(_table(study, plan))
    for what, value in _lines(plan, machine):
        console.print(f"{what:14}{value}", soft_wrap=True)
    for misfit in found:
        console.print(f"[bold red]does not fit[/]  {misfit.what}\n-> {misfit.todo}", soft_wrap=True)
    if not found:
        times = times_of(study, plan)
        parts = [f"{name} {_duration(seconds)}" for name, seconds in times._asdict().items() if seconds]
        console.print(f"{'time':14}{_duration(sum(times))}: {', '.join(parts)}", soft_wrap=True)
    return not found


def _table(study: Study, plan: Plan) -> Table:
    """A line a member."""
    from ontogeny.stages.terminal import new_table

    headings = ("checkpoints", "GB", "to download", "parameters", "edges", "passes", "a worker's memory")
    table = new_table(f"{study.params.suite.name}: {study.params.suite.source}", "member", *headings)
    for m in plan.members:
        table.add_row(
            m.member,
            f"{m.checkpoints:,}",
            f"{m.stored / GB:.2f}",
            f"{m.missing / GB:.2f}",
            f"{m.outline.parameters:,}",
            f"{m.outline.architecture.graph.n_edges:,}",
            f"{m.effort.passes:,}",
            _memory(m.memory),
        )
    return table


def _lines(plan: Plan, machine: Machine) -> Iterator[tuple[str, str]]:
    """What the whole study takes, beside what there is."""
    missing = sum(member.missing for member in plan.members)
    yield "checkpoints", f"{sum(member.checkpoints for member in plan.members):,}"
    yield "download", f"{_size(missing)}" + (f": {_duration(missing / LINE)} at 50 MB/s" if missing else "")
    for folder, needed in plan.disk.items():
        yield "peak disk", f"{_size(needed)} at {folder}, where {_size(machine.disk[folder])} are free"
    yield "peak memory", f"{_memory(plan.memory)}, {plan.workers} workers; {_size(machine.memory)} are available"


def _memory(memory: Memory) -> str:
    return _size(memory.host) + (f" + {_size(memory.device)} of a GPU" if memory.device else "")


def _existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.parents) if path.exists())


def _size(count: float) -> str:
    return f"{count / GB:.2f} GB"


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
