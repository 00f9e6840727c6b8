"""All that is known of one member of a suite, in one folder.

manifest.json        schema version, checkpoints, fingerprints, failures, the list of files; written last
tensors-000.safetensors ...   16 checkpoints a file: edge scores and circuit masks under `STEP/TASK/scores|circuit`, and
                     roles, algorithm, checks and stability (see `ontogeny.records.mechanism`)
behaviour.parquet    step, task, split, quantity -> value, low, high
circuits.parquet     step, task -> status, sizes, areas      faithfulness.parquet   step, task, split -> both forms
curves.parquet       every evaluated circuit                 edges.parquet          edges of each chosen circuit
roles.parquet        step, role, head -> score, chance, holds      role_facts.parquet   step, role, name -> value
algorithm.parquet    step, metric -> value, null, sets of heads    effects.parquet      step, metric, head -> e
repair.parquet       step, role -> lost, total, taken over         repair_heads.parquet the same by head
verification.parquet, verification_heads, _mlps, _roles    step, task -> checks of a circuit
stability.parquet    step, task -> core, likeness of resampled circuits, interval on the size
stability_likeness.parquet    step, task, size -> likeness of edges and of nodes of resampled circuits
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ontogeny.core.audit import Finding, duplicates
from ontogeny.core.circuit import Circuit, EdgeScores
from ontogeny.core.errors import OntogenyError
from ontogeny.core.results import (
    Behaviour,
    CheckpointAnalysis,
    CheckpointRef,
    CircuitResult,
    CurvePoint,
    Estimate,
    Faithfulness,
    ModelFacts,
    TaskAnalysis,
)
from ontogeny.records.files import read_json, read_table, read_tensors, write_json, write_table, write_tensors
from ontogeny.records.mechanism import (
    Mechanism,
    mechanism_rows,
    mechanism_schemas,
    pack_mechanism,
    unpack_mechanism,
)
from ontogeny.records.values import pack, unpack

if TYPE_CHECKING:
    import pyarrow as pa
    from torch import Tensor

MANIFEST = "manifest.json"
SCHEMA = 3
"""Raised when the layout changes so that older files can no longer be read."""
_STEPS_A_FILE = 16
_ESTIMATES = tuple(f.name for f in fields(Behaviour) if f.name != "examples")
_CIRCUIT_COLUMNS = ("status", "reason", "asked", "kept", "nodes", "sustained", "cap", "random_p95", "cpr", "cmd")

Key = tuple[int, str]
"""Step and task."""


@dataclass(frozen=True)
class Failure:
    """A job that failed: what could not be read or computed, and why."""

    member: str
    step: int | None
    """None where the whole member failed, e.g. in training."""
    path: str
    """The file that was at fault, relative to the project's root."""
    reason: str
    """One line."""


@dataclass(frozen=True)
class MemberRecord:
    """One member of a suite: its analysed checkpoints by step, and the jobs that failed."""

    suite: str
    member: str
    analyses: tuple[CheckpointAnalysis, ...]
    fingerprints: Mapping[Key, str]
    """Of (step, task): the same fingerprint promises the same results."""
    failures: tuple[Failure, ...] = ()
    findings: tuple[Finding, ...] = ()
    """Of the audit of all its checkpoints, failed ones too."""

    @property
    def duplicates(self) -> dict[int, int]:
        """Step -> the earlier step whose weights are the same (METHODS 1.5)."""
        return duplicates([analysis.ref for analysis in self.analyses])

    @property
    def suspect(self) -> frozenset[int]:
        """Steps that are left out where checkpoints are compared: duplicates, and what else the audit found."""
        return frozenset(self.duplicates) | {finding.step for finding in self.findings}


def write_member(folder: Path, record: MemberRecord) -> None:
    """Write `record` into `folder`; files of an older record there are removed. The manifest comes last."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MANIFEST).unlink(missing_ok=True)
    tables = _tables(record)
    packs = list(_tensor_packs(record))
    names = [f"{name}.parquet" for name in tables] + [name for name, *_ in packs]
    for stale in [p for p in folder.iterdir() if p.is_file() and p.name not in names]:
        stale.unlink()
    schemas = _schemas() | mechanism_schemas()
    for name, rows in tables.items():
        write_table(folder / f"{name}.parquet", rows, schemas[name])
    for name, tensors, mechanisms in packs:
        write_tensors(folder / name, tensors, {"schema": SCHEMA, "mechanisms": mechanisms})
    write_json(folder / MANIFEST, _manifest(record, names))


def read_member(folder: Path) -> MemberRecord:
    """Inverse of `write_member`.

    Raises:
        OntogenyError: a file is missing or broken, or was written by another version; the message names it.
    """
    manifest = read_json(folder / MANIFEST)
    if manifest.get("schema") != SCHEMA:
        raise OntogenyError(
            f"{folder / MANIFEST} has schema {manifest.get('schema')!r}, this version reads {SCHEMA}: "
            "delete the folder and run `make study` again."
        )
    tensors: dict[str, Tensor] = {}
    mechanisms: dict[str, Any] = {}
    for name in manifest["files"]:
        if name.endswith(".safetensors"):
            more, metadata = read_tensors(folder / name)
            tensors |= more
            mechanisms |= metadata["mechanisms"]
    tables = {name: _grouped(read_table(folder / f"{name}.parquet")) for name in _schemas() if name != "edges"}
    return MemberRecord(
        suite=manifest["suite"],
        member=manifest["member"],
        analyses=tuple(_read_checkpoint(entry, tables, tensors, mechanisms) for entry in manifest["checkpoints"]),
        fingerprints={(item["step"], item["task"]): item["fingerprint"] for item in manifest["fingerprints"]},
        failures=tuple(Failure(**item) for item in manifest["failures"]),
        findings=tuple(Finding(**item) for item in manifest.get("findings", ())),
    )


def _manifest(record: MemberRecord, names: Sequence[str]) -> dict[str, Any]:
    again = record.duplicates
    return {
        "schema": SCHEMA,
        "suite": record.suite,
        "member": record.member,
        "status": "failed" if record.failures else "complete",
        "checkpoints": [
            {
                "ref": pack(analysis.ref)[0],
                "model": pack(analysis.model)[0],
                "tasks": list(analysis.tasks),
                "duplicate_of": again.get(analysis.ref.step),
            }
            for analysis in record.analyses
        ],
        "fingerprints": [
            {"step": step, "task": task, "fingerprint": value}
            for (step, task), value in sorted(record.fingerprints.items())
        ],
        "failures": [asdict(failure) for failure in record.failures],
        "findings": [asdict(finding) for finding in record.findings],
        "files": sorted(names),
    }


def _tensor_packs(record: MemberRecord) -> Iterator[tuple[str, dict[str, Tensor], dict[str, Any]]]:
    """File name, tensors and, by step, what else is known of the mechanism, 16 checkpoints at a time."""
    for start in range(0, len(record.analyses), _STEPS_A_FILE):
        tensors: dict[str, Tensor] = {}
        mechanisms: dict[str, Any] = {}
        for analysis in record.analyses[start : start + _STEPS_A_FILE]:
            for task, result in analysis.tasks.items():
                if result.scores is not None:
                    tensors[f"{analysis.ref.step}/{task}/scores"] = result.scores.values
                if result.circuit.circuit is not None:
                    tensors[f"{analysis.ref.step}/{task}/circuit"] = result.circuit.circuit.edges
            mechanisms[str(analysis.ref.step)], more = pack_mechanism(analysis)
            tensors |= more
        yield f"tensors-{start // _STEPS_A_FILE:03d}.safetensors", tensors, mechanisms


@cache
def _schemas() -> dict[str, pa.Schema]:
    """Columns of each table of tasks; the first two are always step and task."""
    import pyarrow as pa

    integer, text, number = pa.int64(), pa.string(), pa.float64()
    both = {"metric": number, "raw": number, "normalised": number}
    sizes = dict.fromkeys(("asked", "kept", "nodes", "sustained", "cap"), integer)
    areas = dict.fromkeys(("random_p95", "cpr", "cmd"), number)
    columns: dict[str, dict[str, pa.DataType]] = {
        "behaviour": {"split": text, "quantity": text, "value": number, "low": number, "high": number}
        | {"examples": integer},
        "circuits": {"dataset_digest": text, "score_method": text, "status": text, "reason": text} | sizes | areas,
        "faithfulness": {"split": text} | both,
        "curves": {"series": text, "point": integer, "fraction": number, "asked": integer, "kept": integer}
        | {"part": text, "draw": integer}
        | both,
        "edges": {"edge": text, "writer": text, "reader": text, "score": number},
    }
    return {name: pa.schema({"step": integer, "task": text} | fields_) for name, fields_ in columns.items()}


def _tables(record: MemberRecord) -> dict[str, list[tuple[object, ...]]]:
    """Rows of each table, in the order of its schema."""
    rows: dict[str, list[tuple[object, ...]]] = {name: [] for name in (*_schemas(), *mechanism_schemas())}
    for analysis in record.analyses:
        for name, more in mechanism_rows(analysis).items():
            rows[name] += more
        for task, result in analysis.tasks.items():
            key = (analysis.ref.step, task)
            rows["behaviour"] += [key + row for row in _behaviour_rows(result.behaviour)]
            rows["circuits"].append(key + _circuit_row(result))
            for split, value in result.circuit.faithfulness.items():
                rows["faithfulness"].append((*key, split, *_both(value)))
            for series in ("curve", "searched"):
                for i, point in enumerate(getattr(result.circuit, series)):
                    rows["curves"] += [(*key, series, i, *row) for row in _point_rows(point)]
            rows["edges"] += [key + row for row in _edge_rows(result)]
    return rows


def _behaviour_rows(behaviour: Mapping[Any, Behaviour]) -> Iterator[tuple[object, ...]]:
    for split, value in behaviour.items():
        for quantity in _ESTIMATES:
            estimate = getattr(value, quantity)
            yield split, quantity, estimate.value, estimate.low, estimate.high, value.examples


def _circuit_row(result: TaskAnalysis) -> tuple[object, ...]:
    method = result.scores.method if result.scores is not None else None
    return (result.dataset_digest, method, *(getattr(result.circuit, name) for name in _CIRCUIT_COLUMNS))


def _point_rows(point: CurvePoint) -> Iterator[tuple[object, ...]]:
    head = (point.fraction, point.asked, point.kept)
    yield (*head, "circuit", 0, *_both(point.faithfulness))
    if point.complement is not None:
        yield (*head, "complement", 0, *_both(point.complement))
    for draw, value in enumerate(point.random):
        yield (*head, "random", draw, *_both(value))


def _edge_rows(result: TaskAnalysis) -> Iterator[tuple[object, ...]]:
    """The chosen circuit's edges by name, for people and other programs: `read_member` does not need them."""
    if result.circuit.circuit is None:
        return
    graph = result.circuit.circuit.graph
    for writer, reader in result.circuit.circuit.edges.nonzero().tolist():
        score = float(result.scores.values[writer, reader]) if result.scores is not None else None
        yield graph.edge_name(writer, reader), graph.writer_names[writer], graph.reader_names[reader], score


def _both(value: Faithfulness) -> tuple[float, float, float]:
    return value.metric, value.raw, value.normalised


Tables = Mapping[str, Mapping[Key, list[dict[str, Any]]]]


def _grouped(rows: list[dict[str, Any]]) -> dict[Key, list[dict[str, Any]]]:
    groups: dict[Key, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[row["step"], row["task"]].append(row)
    return groups


def _read_checkpoint(
    entry: Mapping[str, Any], tables: Tables, tensors: Mapping[str, Tensor], mechanisms: Mapping[str, Any]
) -> CheckpointAnalysis:
    ref = unpack(CheckpointRef, entry["ref"], {})
    model = unpack(ModelFacts, entry["model"], {})
    found = unpack_mechanism(mechanisms[str(ref.step)], tensors)
    tasks = {task: _read_task((ref.step, task), model, tables, tensors, found) for task in entry["tasks"]}
    return CheckpointAnalysis(ref, model, tasks, found.roles, found.holders, found.algorithm)


def _read_task(
    key: Key, model: ModelFacts, tables: Tables, tensors: Mapping[str, Tensor], mechanism: Mechanism
) -> TaskAnalysis:
    (row,) = tables["circuits"][key]
    scores, mask = (tensors.get(f"{key[0]}/{key[1]}/{name}") for name in ("scores", "circuit"))
    circuit = CircuitResult(
        **{name: row[name] for name in _CIRCUIT_COLUMNS},
        circuit=None if mask is None else Circuit(model.graph, mask),
        faithfulness={r["split"]: _faithfulness(r) for r in tables["faithfulness"].get(key, [])},
        curve=_read_points(tables["curves"].get(key, []), "curve"),
        searched=_read_points(tables["curves"].get(key, []), "searched"),
    )
    return TaskAnalysis(
        task=key[1],
        dataset_digest=row["dataset_digest"],
        behaviour=_read_behaviour(tables["behaviour"].get(key, [])),
        scores=None if scores is None else EdgeScores(model.graph, scores, row["score_method"]),
        circuit=circuit,
        verification=mechanism.verification.get(key[1]),
        stability=mechanism.stability.get(key[1]),
    )


def _read_behaviour(rows: Sequence[Mapping[str, Any]]) -> dict[Any, Behaviour]:
    parts: dict[str, dict[str, Any]] = defaultdict(dict)
    for row in rows:
        parts[row["split"]][row["quantity"]] = Estimate(row["value"], row["low"], row["high"])
        parts[row["split"]]["examples"] = row["examples"]
    return {split: Behaviour(**values) for split, values in parts.items()}


def _read_points(rows: Sequence[Mapping[str, Any]], series: str) -> tuple[CurvePoint, ...]:
    points: dict[int, list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        if row["series"] == series:
            points[row["point"]].append(row)
    return tuple(_read_point(parts) for _, parts in sorted(points.items()))


def _read_point(rows: Sequence[Mapping[str, Any]]) -> CurvePoint:
    parts = {
        part: [_faithfulness(r) for r in rows if r["part"] == part] for part in ("circuit", "complement", "random")
    }
    return CurvePoint(
        fraction=rows[0]["fraction"],
        asked=rows[0]["asked"],
        kept=rows[0]["kept"],
        faithfulness=parts["circuit"][0],
        complement=parts["complement"][0] if parts["complement"] else None,
        random=tuple(parts["random"]),
    )


def _faithfulness(row: Mapping[str, Any]) -> Faithfulness:
    return Faithfulness(row["metric"], row["raw"], row["normalised"])
