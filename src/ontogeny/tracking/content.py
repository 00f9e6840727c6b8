"""What a run shows, as plain values: no mlflow in this file.

Two kinds of run. A *checkpoint* run is one task at one checkpoint; its numbers have no steps except the faithfulness
curve (`curve/...`, whose step is the number of edges asked for). A *trajectory* run is one task of one member; the
same names logged at step = training step, so that the UI lays scales over each other.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final, NamedTuple

import pandas as pd

from ontogeny.core.exchange import to_eap_ig
from ontogeny.core.results import CheckpointAnalysis, ModelFacts, TaskAnalysis
from ontogeny.params import Params
from ontogeny.records import MemberRecord
from ontogeny.series import HEADLINE_SPLITS, Trajectory, measures, mechanism_measures, scale_colours
from ontogeny.tracking.mechanism import leading_heads, mechanism_files, mechanism_note

CHECKPOINTS: Final = "checkpoints"
TRAJECTORIES: Final = "trajectories"
KINDS: Final = (CHECKPOINTS, TRAJECTORIES)
FINGERPRINT: Final = "fingerprint"
CURRENT: Final = "current"
NOTE: Final = "mlflow.note.content"

EXPERIMENT_NOTES: Final = {
    CHECKPOINTS: (
        "**Tables: {links}.** "
        "One run is one task at one training checkpoint of one model. The tables are also under *Views*, top right. "
        "Filter by tags, e.g. "
        "`tags.current = 'true' and tags.task = 'ioi' and tags.scale = 'large' and tags.status = 'found'`.\n\n"
        "Open a run: *Overview* has its numbers; *Artifacts* the circuit as a picture (`circuit/circuit.png`), as a "
        "page (`circuit/circuit.html`), as a table (`circuit/edges.csv`) and as JSON that the EAP-IG library reads, "
        "the faithfulness curve, and what every head does (`roles/`; of IOI also `algorithm/`). The tag `head.ROLE` "
        "names the head with the largest score, e.g. ``tags.`head.induction` = 'a3.h1'``. Runs of earlier settings "
        "stay, tagged `current = 'false'`. How a number moves during training is shown by the experiment that ends in "
        "`/trajectories`."
    ),
    TRAJECTORIES: (
        "**Charts of all scales: {links}.** "
        "One run is one task followed through the training of one model. The charts are also under *Views*, top "
        "right.\n\n"
        "The x axis is the training step. `behaviour/held_out/metric` shows when the ability appears, `circuit/edges` "
        "how large its circuit is (no point where none was found), `similarity/...` how alike consecutive circuits "
        "are. Filter: `tags.current = 'true' and tags.task = 'ioi'`. Single checkpoints, with pictures of their "
        "circuits, are in the experiment that ends in `/checkpoints`."
    ),
}
_SECTIONS: Final = ("datasets", "analyse")
"""Settings that a checkpoint's numbers depend on."""


class Point(NamedTuple):
    """One number of a run."""

    name: str
    value: float
    step: int
    seconds: float
    """Moment at which the job behind it finished, since the epoch."""


@dataclass(frozen=True)
class RunContent:
    """All that a run shows."""

    name: str
    tags: Mapping[str, str]
    params: Mapping[str, str]
    points: Sequence[Point]
    files: Mapping[str, bytes]
    """Artifacts by path."""
    dataset: tuple[str, str] | None
    """Task and digest."""
    seconds: float
    """When the job finished (the run's start and end)."""


@dataclass(frozen=True)
class PlannedRun:
    """A run that the store must have: its fingerprint, and how to make it if it has not."""

    kind: str
    fingerprint: str
    build: Callable[[], RunContent]


def unknown(job: str) -> None:
    """Stands for a job cache that knows nothing of `job`."""
    del job


@dataclass(frozen=True)
class Projection:
    """What is to be shown of a study."""

    records: Sequence[MemberRecord]
    trajectory: Trajectory
    study: str
    """Experiments are named STUDY/checkpoints and STUDY/trajectories."""
    settings: Mapping[str, Any]
    """Sections of params.yaml by name, see `settings_of`."""
    now: float
    """Seconds since the epoch; stands for the moment of a job that `finished_at` does not know."""
    finished_at: Callable[[str], float | None] = field(default=unknown)
    """Moment at which a job finished, by its fingerprint, or none."""
    bundle: Callable[[str], bytes | None] = field(default=unknown)
    """Pictures of a job (a zip archive, see figures.draw_bundle) by its fingerprint, or none."""
    commit: str | None = None
    """Of git."""

    @property
    def tasks(self) -> tuple[str, ...]:
        """All tasks, in the order of the records."""
        return tuple(dict.fromkeys(task for r in self.records for a in r.analyses for task in a.tasks))

    def runs(self) -> Iterator[PlannedRun]:
        """Every run of the study."""
        for record in self.records:
            for analysis in record.analyses:
                for task in analysis.tasks:
                    yield self._checkpoint(record, analysis, task)
        tasks = self.trajectory.table[self.trajectory.table["task"].isin(self.tasks)]
        for keys, rows in tasks.groupby(["member", "task"], sort=False):
            member, task = (str(key) for key in keys)
            yield self._trajectory(member, task, rows)

    def _checkpoint(self, record: MemberRecord, analysis: CheckpointAnalysis, task: str) -> PlannedRun:
        ref = analysis.ref
        job = record.fingerprints[ref.step, task]
        fingerprint = _digest(job, ref.suite, ref.member, ref.step, task)
        audit = _audit_tags(record, ref.step)
        return PlannedRun(
            CHECKPOINTS, fingerprint, lambda: self._checkpoint_content(analysis, task, job, fingerprint, audit)
        )

    def _checkpoint_content(
        self, analysis: CheckpointAnalysis, task: str, job: str, fingerprint: str, audit: Mapping[str, str]
    ) -> RunContent:
        ref, model, result = analysis.ref, analysis.model, analysis.tasks[task]
        seconds = self._moment(job)
        tags = self._tags(ref.suite, ref.member, ref.scale, ref.seed, task, fingerprint) | {
            "kind": "checkpoint",
            "job": job,
            "step": str(ref.step),
            "tokens": str(ref.tokens),
            "status": result.circuit.status,
            "dataset": result.dataset_digest,
            "weights": ref.weights_digest,
            NOTE: _checkpoint_note(analysis, task),
        }
        tags |= audit
        tags |= {f"head.{role}": head for role, head in leading_heads(analysis).items()}
        graph = model.graph
        sections = {name: self.settings[name] for name in _SECTIONS if name in self.settings}
        facts = {
            "layers": graph.n_layers,
            "heads": graph.n_heads,
            "d_model": model.d_model,
            "d_head": model.d_head,
            "parameters": model.parameters,
            "edges": graph.n_edges,
        }
        return RunContent(
            name=f"{ref.member} {ref.step} {task}",
            tags=tags,
            params=_flat({"model": facts, **sections}),
            points=_checkpoint_points(analysis, result, seconds),
            files=_checkpoint_files(model, result, self.bundle(job)) | mechanism_files(analysis, task),
            dataset=(task, result.dataset_digest),
            seconds=seconds,
        )

    def _trajectory(self, member: str, task: str, rows: pd.DataFrame) -> PlannedRun:
        record = next(r for r in self.records if r.member == member)
        moments = {step: self._moment(job) for (step, of), job in record.fingerprints.items() if of == task}
        points = list(_trajectory_points(rows, moments, self.now))
        fingerprint = _digest(member, task, [point[:3] for point in points])
        return PlannedRun(
            TRAJECTORIES, fingerprint, lambda: self._trajectory_content(record, task, rows, points, fingerprint)
        )

    def _trajectory_content(
        self, record: MemberRecord, task: str, rows: pd.DataFrame, points: Sequence[Point], fingerprint: str
    ) -> RunContent:
        last = max((a for a in record.analyses if task in a.tasks), key=lambda a: a.ref.step)
        ref, digest = last.ref, last.tasks[task].dataset_digest
        onsets = self.trajectory.onsets
        (onset,) = onsets[(onsets["member"] == record.member) & (onsets["task"] == task)].itertuples()
        tags = self._tags(ref.suite, ref.member, ref.scale, ref.seed, task, fingerprint) | {
            "kind": "trajectory",
            "status": last.tasks[task].circuit.status,
            "onset": str(onset.status),
            "dataset": digest,
            NOTE: _trajectory_note(record, task, onset, last),
        }
        sections = {name: self.settings[name] for name in (*_SECTIONS, "trajectory") if name in self.settings}
        return RunContent(
            name=f"{ref.member} {task}",
            tags=tags,
            params=_flat({"model": {"parameters": last.model.parameters}, **sections}),
            points=points,
            files={"series.csv": rows.to_csv(index=False).encode(), **self._elsewhere(record.member, task)},
            dataset=(task, digest),
            seconds=max((point.seconds for point in points), default=self.now),
        )

    def _elsewhere(self, member: str, task: str) -> dict[str, bytes]:
        """Tables of the member's circuits in other models, and of its role heads ablated; those that have rows."""
        tables = {"transfers": self.trajectory.transfers, "ablations": self.trajectory.ablations}
        kept = {name: t[(t["member"] == member) & (t["task"] == task)] for name, t in tables.items()}
        return {f"{name}.csv": rows.to_csv(index=False).encode() for name, rows in kept.items() if len(rows)}

    def _tags(self, suite: str, member: str, scale: str, seed: int, task: str, fingerprint: str) -> dict[str, str]:
        tags = {"suite": suite, "member": member, "scale": scale, "seed": str(seed), "task": task}
        tags |= {FINGERPRINT: fingerprint, CURRENT: "true", "mlflow.source.name": "ontogeny"}
        tags["mlflow.runColor"] = self._colours[scale]
        return tags | ({"git_commit": self.commit, "mlflow.source.git.commit": self.commit} if self.commit else {})

    @cached_property
    def _colours(self) -> dict[str, str]:
        return scale_colours(self.trajectory.summary)

    def _moment(self, job: str) -> float:
        known = self.finished_at(job)
        return self.now if known is None else known


def settings_of(params: Params) -> dict[str, Any]:
    """The sections of params.yaml that runs show."""
    chosen = params.model_dump(mode="json")
    return {name: chosen[name] for name in (*_SECTIONS, "trajectory")}


def _checkpoint_points(analysis: CheckpointAnalysis, result: TaskAnalysis, seconds: float) -> list[Point]:
    """Numbers that are finite; what is not has a status tag that says why."""
    points = [Point("step", analysis.ref.step, 0, seconds), Point("tokens", analysis.ref.tokens, 0, seconds)]
    named = measures(result, analysis.model.graph) | mechanism_measures(analysis, result.task)
    for name, measure in named.items():
        for suffix, value in (("", measure.value), ("_low", measure.low), ("_high", measure.high)):
            points.append(Point(name + suffix, value, 0, seconds))
    for point in result.circuit.curve:
        values = {"raw": point.faithfulness.raw, "normalised": point.faithfulness.normalised, "kept": point.kept}
        points += [Point(f"curve/{name}", value, point.asked, seconds) for name, value in values.items()]
    return [point for point in points if math.isfinite(point.value)]


def _trajectory_points(rows: pd.DataFrame, moments: Mapping[int, float], now: float) -> Iterator[Point]:
    ends = {"value": "", "low": "_low", "high": "_high"}
    columns = [rows[name].tolist() for name in ("quantity", "step", "tokens", *ends)]
    told = set()
    for quantity, step, tokens, *values in zip(*columns):
        seconds = moments.get(step, now)
        if step not in told:
            told.add(step)
            yield Point("tokens", tokens, step, seconds)
        for suffix, value in zip(ends.values(), values):
            if math.isfinite(value):
                yield Point(quantity + suffix, value, step, seconds)


def _checkpoint_files(model: ModelFacts, result: TaskAnalysis, bundle: bytes | None) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    found = result.circuit
    if found.circuit is not None and result.scores is not None:
        files["circuit/edges.csv"] = _edge_table(result).encode()
        graph = to_eap_ig(found.circuit, result.scores, model.d_model)
        files["circuit/eap_ig.json"] = json.dumps(graph, separators=(",", ":")).encode()
    if found.curve:
        files["faithfulness/curve.csv"] = _curve_table(result).encode()
    if bundle is not None:
        with zipfile.ZipFile(io.BytesIO(bundle)) as archive:
            for name in archive.namelist():
                folder = "" if "/" in name else "faithfulness/" if name.startswith("faithfulness") else "circuit/"
                files[f"{folder}{name}"] = archive.read(name)
    return files


def _edge_table(result: TaskAnalysis) -> str:
    """Edges of the circuit, strongest first."""
    assert result.scores is not None
    assert result.circuit.circuit is not None
    graph, values = result.scores.graph, result.scores.values
    rows = [
        (float(values[u, v]), graph.writer_names[u], graph.reader_names[v], graph.reader_kinds[v])
        for u, v in result.circuit.circuit.edges.nonzero().tolist()
    ]
    rows.sort(key=lambda row: -abs(row[0]))
    lines = [f"{writer}->{reader},{writer},{reader},{kind},{score!r}" for score, writer, reader, kind in rows]
    return "\n".join(["edge,writer,reader,kind,score", *lines]) + "\n"


def _curve_table(result: TaskAnalysis) -> str:
    """The faithfulness curve, an empty cell where a number is undefined."""
    lines = ["fraction,asked,kept,metric,raw,normalised"]
    for point in result.circuit.curve:
        value = point.faithfulness
        cells = (point.fraction, point.asked, point.kept, value.metric, value.raw, value.normalised)
        lines.append(",".join(str(cell) if math.isfinite(cell) else "" for cell in cells))
    return "\n".join(lines) + "\n"


def _audit_tags(record: MemberRecord, step: int) -> dict[str, str]:
    """What is wrong with a checkpoint: tags, none if nothing is."""
    faults = [finding.fault for finding in record.findings if finding.step == step]
    tags = {"audit": ", ".join(faults)} if faults else {}
    if (duplicate := record.duplicates.get(step)) is not None:
        tags["duplicate_of"] = str(duplicate)
    return tags


def _checkpoint_note(analysis: CheckpointAnalysis, task: str) -> str:
    ref, result = analysis.ref, analysis.tasks[task]
    circuit = result.circuit
    lines = [f"**{task}** by `{ref.member}` after {ref.step:,} steps ({ref.tokens:,} tokens)."]
    for split in [s for s in HEADLINE_SPLITS if s in result.behaviour][:1]:
        metric, prompts = result.behaviour[split].metric, split.replace("_", "-")
        lines.append(f"On {prompts} prompts the metric is {metric.value:.3f} ({metric.low:.3f} to {metric.high:.3f}).")
    if circuit.status == "found":
        lines.append(
            f"The smallest faithful circuit keeps {circuit.kept} of {analysis.model.graph.n_edges:,} edges. "
            "Picture: *Artifacts*, `circuit/circuit.png`."
        )
    else:
        lines.append(f"No circuit size: `{circuit.status}`. {circuit.reason}")
    lines += mechanism_note(analysis, task)
    return "\n\n".join(lines)


def _trajectory_note(record: MemberRecord, task: str, onset: Any, last: CheckpointAnalysis) -> str:
    appears = (
        f"The ability appears at step {onset.step:,} ({onset.tokens:,} tokens)."
        if onset.status == "found"
        else f"Onset of the ability: {onset.status} ({onset.reason})."
    )
    return (
        f"**{task}** through the training of `{record.member}` ({last.model.parameters:,} parameters): "
        f"{len(record.analyses)} checkpoints, the last at step {last.ref.step:,}.\n\n{appears}\n\n"
        "*Model metrics* draws every number against the training step; the experiment's *Views* lay scales over "
        "each other."
    )


def _flat(nested: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Params by dotted name; lists as JSON."""
    flat: dict[str, str] = {}
    for key, value in nested.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{name}.")
        else:
            flat[name] = value if isinstance(value, str) else json.dumps(value)
    return flat


def _digest(*facts: object) -> str:
    return hashlib.sha256(json.dumps(facts, separators=(",", ":")).encode()).hexdigest()[:32]
