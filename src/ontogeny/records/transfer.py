"""A member's circuits at other checkpoints and in other seeds, and its role heads taken out: one folder.

transfer.json        schema version, suite, member, anchors
transfers.parquet    task, step (target), source_member, source_step, heads -> both forms of faithfulness, likeness
ablations.parquet    task, role, step -> what the role's heads cost, beside sets that match them
matches.parquet      step, source_member, layer, source_head -> head, distance
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ontogeny.core.errors import OntogenyError
from ontogeny.core.roles import head_names
from ontogeny.core.transfer import HeadAblation, HeadMatch, Transfer
from ontogeny.records.files import read_json, read_table, write_json, write_table

if TYPE_CHECKING:
    import pyarrow as pa

MANIFEST = "transfer.json"
SCHEMA = 1
_KINDS: dict[str, type[Any]] = {"transfers": Transfer, "ablations": HeadAblation, "matches": HeadMatch}


@dataclass(frozen=True)
class TransferRecord:
    """What the stage `transfer` knows of one member."""

    suite: str
    member: str
    anchors: tuple[int, ...]
    """Steps, ascending."""
    transfers: tuple[Transfer, ...]
    """Every anchor of this member on every anchor, and every other seed of the scale on the anchors of the same step,
    each under every way of naming heads."""
    ablations: tuple[HeadAblation, ...]
    matches: tuple[HeadMatch, ...]


def write_transfer(folder: Path, record: TransferRecord) -> None:
    """Write `record` into `folder`."""
    facts = {"schema": SCHEMA, "suite": record.suite, "member": record.member, "anchors": list(record.anchors)}
    for name, kind in _KINDS.items():
        rows = [_row(value) for value in getattr(record, name)]
        write_table(folder / f"{name}.parquet", rows, _schema(kind))
    write_json(folder / MANIFEST, facts)


def read_transfer(folder: Path) -> TransferRecord:
    """Inverse of `write_transfer`.

    Raises:
        OntogenyError: there is none, it cannot be read, or another version wrote it.
    """
    facts = read_json(folder / MANIFEST)
    if facts.get("schema") != SCHEMA:
        raise OntogenyError(
            f"{folder / MANIFEST} has schema {facts.get('schema')!r}, this version reads {SCHEMA}: run `make study`."
        )
    found = {name: _read(folder / f"{name}.parquet", kind) for name, kind in _KINDS.items()}
    return TransferRecord(facts["suite"], facts["member"], tuple(facts["anchors"]), **found)


def _schema(kind: Any) -> pa.Schema:
    """Columns as the fields are annotated; heads are names, as in ``a5.h2 a6.h0``."""
    import pyarrow as pa

    types = {"int": pa.int64(), "int | None": pa.int64(), "float": pa.float64()}
    return pa.schema({field.name: types.get(str(field.type), pa.string()) for field in fields(kind)})


def _row(value: Transfer | HeadAblation | HeadMatch) -> tuple[object, ...]:
    """Numbers and words as they are, heads as names."""
    cells = astuple(value)
    return tuple(" ".join(head_names(cell)) if isinstance(cell, tuple) else cell for cell in cells)


def _read(path: Path, kind: type[Any]) -> tuple[Any, ...]:
    rows: Sequence[dict[str, Any]] = read_table(path)
    heads = {field.name for field in fields(kind) if str(field.type).startswith("tuple")}
    return tuple(kind(**{k: _heads(v) if k in heads else v for k, v in row.items()}) for row in rows)


def _heads(names: str) -> tuple[tuple[int, int], ...]:
    """Inverse of `head_names`."""
    parts = [name.removeprefix("a").split(".h") for name in names.split()]
    return tuple((int(layer), int(head)) for layer, head in parts)
