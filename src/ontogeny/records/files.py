"""Whole files or none: each write goes to a temporary neighbour, is flushed, then takes the file's name.

The same values give the same bytes in every process: JSON keys are sorted, safetensors metadata is one key (several
are written in a random order per process), parquet files hold no times.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ontogeny.core.errors import OntogenyError

if TYPE_CHECKING:
    import pyarrow as pa
    from torch import Tensor

_METADATA_KEY = "ontogeny"


@contextmanager
def replacing(path: Path, *, flush: bool = True) -> Iterator[Path]:
    """Yield a temporary path; what was written there becomes `path` if the block ends well, else is removed.

    `flush=False` does not wait for the disk: a kill can do no harm, a power cut may leave an empty file. For caches.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        if flush:
            _flush(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    if flush:
        _flush(path.parent)


def write_json(path: Path, value: object) -> None:
    """Write plain JSON values; a number that is not finite is refused (encode it as null first)."""
    text = json.dumps(value, sort_keys=True, indent=1, allow_nan=False, ensure_ascii=False)
    with replacing(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Inverse of `write_json`.

    Raises:
        OntogenyError: no such file, or no JSON; the message names the file.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise OntogenyError(f"{path} does not exist: run `make study`, which writes it.") from None
    except ValueError as error:
        raise OntogenyError(f"{path} holds no valid JSON ({error}): delete it and run `make study` again.") from None


def write_tensors(path: Path, tensors: Mapping[str, Tensor], record: object, *, flush: bool = True) -> None:
    """Write named tensors, and a JSON value beside them in the same file; for `flush` see `replacing`.

    Tensors that share memory are written one by one: safetensors refuses them.
    """
    import torch
    from safetensors.torch import save_file

    text = json.dumps(record, sort_keys=True, allow_nan=False, ensure_ascii=False)
    own = {name: t.detach().cpu().clone(memory_format=torch.contiguous_format) for name, t in tensors.items()}
    with replacing(path, flush=flush) as temporary:
        save_file(own, temporary, {_METADATA_KEY: text})


def read_tensors(path: Path) -> tuple[dict[str, Tensor], Any]:
    """The tensors and the JSON value that `write_tensors` wrote.

    Raises:
        OntogenyError: the file cannot be read; the message names it.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            names = file.keys()
            return {name: file.get_tensor(name) for name in names}, json.loads(metadata[_METADATA_KEY])
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise OntogenyError(f"{path} cannot be read ({error}): delete it and run `make study` again.") from None


def write_table(path: Path, rows: Sequence[Sequence[object]], schema: pa.Schema) -> None:
    """Write rows, each in the order of the schema's fields. None is null; NaN stays NaN."""
    import pyarrow as pa
    from pyarrow import parquet

    columns = list(zip(*rows)) if rows else [()] * len(schema)
    arrays = [pa.array(column, type=field.type, from_pandas=False) for column, field in zip(columns, schema)]
    with replacing(path) as temporary:
        parquet.write_table(pa.Table.from_arrays(arrays, schema=schema), temporary, compression="zstd")


def read_table(path: Path) -> list[dict[str, Any]]:
    """One dictionary a row.

    Raises:
        OntogenyError: the file cannot be read; the message names it.
    """
    import pyarrow as pa
    from pyarrow import parquet

    try:
        rows: list[dict[str, Any]] = parquet.read_table(path).to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise OntogenyError(f"{path} cannot be read ({error}): delete it and run `make study` again.") from None
    return rows


def _flush(path: Path) -> None:
    """Ask the disk to keep a file, or the names in a folder."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
