"""Records: exact round trips, the same bytes in every process, whole files or none."""

import dataclasses
import hashlib
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ontogeny.core.errors import OntogenyError
from ontogeny.core.results import CheckpointAnalysis
from ontogeny.records import (
    pack,
    read_json,
    read_member,
    read_table,
    read_tensors,
    unpack,
    write_json,
    write_member,
    write_tensors,
)
from ontogeny.records.files import replacing
from ontogeny.records.mechanism import mechanism_schemas
from ontogeny.records.member import SCHEMA
from support.record_examples import NAN, member_record, ref


def same(a: object, b: object) -> bool:
    """Equal in type, value and order, where NaN equals NaN and tensors are compared bit by bit."""
    if isinstance(a, torch.Tensor):
        alike = isinstance(b, torch.Tensor) and a.dtype == b.dtype and a.shape == b.shape
        return alike and torch.equal(a.nan_to_num(-77.0), b.nan_to_num(-77.0))  # type: ignore[union-attr]
    if dataclasses.is_dataclass(a):
        return type(a) is type(b) and all(same(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(a))
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, tuple):
        return isinstance(b, tuple) and len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, float) and math.isnan(a):
        return isinstance(b, float) and math.isnan(b)
    return type(a) is type(b) and a == b


def test_a_member_survives_the_disk_exactly(tmp_path: Path) -> None:
    record = member_record()
    write_member(tmp_path, record)
    back = read_member(tmp_path)
    assert same(back.analyses, record.analyses)
    assert same(back.failures, record.failures)
    assert back.fingerprints == record.fingerprints
    other = dataclasses.replace(record, analyses=record.analyses[:-1])
    assert not same(back.analyses, other.analyses)
    assert len(list(tmp_path.glob("tensors-*.safetensors"))) == 2


def test_tables_say_what_is_known_of_the_mechanism(tmp_path: Path) -> None:
    record = member_record(range(3))
    write_member(tmp_path, record)
    table = {name: read_table(tmp_path / f"{name}.parquet") for name in mechanism_schemas()}
    roles = record.analyses[2].roles
    (row,) = [r for r in table["roles"] if (r["step"], r["role"], r["head"]) == (2, "induction", "a0.h1")]
    assert (row["layer"], row["head_index"], row["holds"]) == (0, 1, True)
    assert row["score"] == float(roles["induction"].score[0, 1])
    assert len(table["roles"]) == 3 * 2 * 4
    assert sum(r["holds"] for r in table["roles"]) == 3 * 2
    assert {r["reason"] for r in table["roles"] if r["role"] == "name_mover"} == {"no names"}
    assert {r["step"] for r in table["algorithm"]} == {1, 2}, "at step 0 it is undefined: no metric"
    (direct,) = [r for r in table["algorithm"] if (r["step"], r["metric"]) == (1, "direct")]
    assert (direct["value"], direct["heads"], direct["receivers"]) == (85.7, "a1.h1 a0.h0", "")
    assert [r["effect"] for r in table["effects"] if r["step"] == 1] == [-0.5, 0.0, 0.25, -1.0]
    assert [(r["ablated"], r["taken_over"]) for r in table["repair"]] == [("a0.h1", 0.25)] * 2
    assert [r["by_mlps"] for r in table["repair"]] == [-0.25] * 2
    assert len(table["repair_heads"]) == 2 * 4
    assert [r["layer"] for r in table["verification_mlps"] if (r["step"], r["task"]) == (0, "ioi")] == [0, 1]
    alike = [r for r in table["stability_likeness"] if (r["step"], r["task"]) == (0, "ioi")]
    assert next((r["size"], r["kept"], r["edges"], r["nodes_high"]) for r in alike) == ("found", None, 0.5, 1.0)
    assert {r["task"] for r in table["verification"]} == {"ioi", "greater_than"}
    assert [r["roles"] for r in table["verification_roles"] if r["step"] == 0][:2] == ["induction", ""]
    found = {(r["step"], r["task"]): r for r in table["stability"]}
    assert found[2, "ioi"]["size"] == 5
    assert found[2, "ioi"]["size_high"] is None
    assert found[1, "ioi"]["reason"] == "off"


def test_tensors_that_share_memory_are_written(tmp_path: Path) -> None:
    values = torch.arange(4.0)
    write_tensors(tmp_path / "x.safetensors", {"a": values, "b": values, "c": values[:1].expand(3)}, {})
    tensors, _ = read_tensors(tmp_path / "x.safetensors")
    assert torch.equal(tensors["a"], tensors["b"])
    assert tensors["c"].tolist() == [0.0, 0.0, 0.0]


def test_duplicates_of_earlier_weights_are_flagged(tmp_path: Path) -> None:
    write_member(tmp_path, member_record())
    assert read_member(tmp_path).duplicates == {1: 0}
    entries = read_json(tmp_path / "manifest.json")["checkpoints"]
    assert [entry["ref"]["step"] for entry in entries if entry["duplicate_of"] is not None] == [1]


def test_a_shorter_record_leaves_nothing_of_a_longer_one(tmp_path: Path) -> None:
    write_member(tmp_path, member_record())
    write_member(tmp_path, member_record(range(3)))
    assert len(list(tmp_path.glob("tensors-*.safetensors"))) == 1
    assert [a.ref.step for a in read_member(tmp_path).analyses] == [0, 1, 2]


def test_two_processes_write_the_same_bytes(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1])\n"
        "from support.record_examples import member_record; from ontogeny.records import write_member\n"
        "write_member(Path(sys.argv[2]), member_record())"
    )
    digests = []
    for name in ("a", "b"):
        subprocess.run([sys.executable, "-c", code, str(Path(__file__).parents[2]), str(tmp_path / name)], check=True)
        files = sorted((tmp_path / name).iterdir())
        digests.append({file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files})
    assert len(digests[0]) == 20
    assert digests[0] == digests[1]


def test_json_on_disk_is_standard_json(tmp_path: Path) -> None:
    record = member_record()
    data, tensors = pack(record.analyses[0])
    write_tensors(tmp_path / "unit.safetensors", tensors, data)
    tensors, data = read_tensors(tmp_path / "unit.safetensors")

    def refuse(word: str) -> None:
        raise AssertionError(word)

    json.loads(json.dumps(data, allow_nan=False), parse_constant=refuse)
    assert same(unpack(CheckpointAnalysis, data, tensors), record.analyses[0])


def test_a_number_that_is_not_finite_is_null_in_json(tmp_path: Path) -> None:
    assert pack((1.0, NAN, math.inf))[0] == [1.0, None, "Infinity"]
    assert same(unpack(tuple[float, ...], [1.0, None, "Infinity"], {}), (1.0, NAN, math.inf))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "x.json", {"x": NAN})
    assert not list(tmp_path.iterdir())


def test_an_unknown_kind_of_value_is_refused() -> None:
    with pytest.raises(TypeError, match=r"value\.path"):
        pack(dataclasses.replace(ref(0), path=Path("x")))  # type: ignore[arg-type]


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", 1)

    def interrupted() -> None:
        with replacing(tmp_path / "x.json") as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert read_json(tmp_path / "x.json") == 1
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


@pytest.mark.parametrize("victim", ["manifest.json", "behaviour.parquet", "tensors-000.safetensors"])
def test_a_broken_file_is_named(tmp_path: Path, victim: str) -> None:
    write_member(tmp_path, member_record(range(2)))
    (tmp_path / victim).write_bytes((tmp_path / victim).read_bytes()[:40])
    with pytest.raises(OntogenyError, match=victim):
        read_member(tmp_path)


def test_another_schema_is_refused(tmp_path: Path) -> None:
    write_member(tmp_path, member_record(range(1)))
    manifest = read_json(tmp_path / "manifest.json")
    write_json(tmp_path / "manifest.json", manifest | {"schema": 0})
    with pytest.raises(OntogenyError, match="schema 0"):
        read_member(tmp_path)


def test_another_layout_has_another_number(tmp_path: Path) -> None:
    """A file or a column more or less: then older records cannot be read, and `SCHEMA` has to say so."""
    from pyarrow import parquet

    write_member(tmp_path, member_record(range(1)))
    schemas = {path.name: parquet.read_schema(path) for path in sorted(tmp_path.glob("*.parquet"))}
    layout = {name: [(field.name, str(field.type)) for field in schema] for name, schema in schemas.items()}
    assert "stability_likeness.parquet" in layout
    digest = hashlib.sha256(json.dumps(layout).encode()).hexdigest()[:16]
    assert (SCHEMA, digest) == (3, "63b4be64871e37e0"), "raise SCHEMA in records/member.py, and put both here"
