"""Any of our frozen dataclasses as plain JSON and named tensors, and back by its type annotations.

Numbers that are not finite become null (NaN) or a word (infinities); a mapping becomes a list of pairs, so that its
order and the type of its keys survive; a tensor is named by its place and kept outside the JSON.
"""

from __future__ import annotations

import math
import types
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, Union, get_args, get_origin, get_type_hints

from torch import Tensor

_INFINITIES = {math.inf: "Infinity", -math.inf: "-Infinity"}


def pack(value: object, place: str = "value") -> tuple[Any, dict[str, Tensor]]:
    """JSON and tensors of `value`; the tensors' names start with `place`."""
    tensors: dict[str, Tensor] = {}
    return _encode(value, place, tensors), tensors


def unpack(kind: Any, data: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Inverse of `pack` for a value of type `kind`, a class or an annotation such as ``Estimate | None``."""
    return _decode(kind, data, tensors)


def _encode(value: object, place: str, tensors: dict[str, Tensor]) -> Any:
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else _INFINITIES.get(value)
    if isinstance(value, Tensor):
        tensors[place] = value
        return {"tensor": place}
    if is_dataclass(value):
        return {f.name: _encode(getattr(value, f.name), f"{place}.{f.name}", tensors) for f in fields(value)}
    if isinstance(value, Mapping):
        return [[_encode(k, place, tensors), _encode(v, f"{place}.{k}", tensors)] for k, v in value.items()]
    if isinstance(value, tuple | list):
        return [_encode(item, f"{place}.{i}", tensors) for i, item in enumerate(value)]
    raise TypeError(f"{place}: a {type(value).__name__} cannot be recorded")


def _decode(kind: Any, data: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(data, dict) and data.keys() == {"tensor"}:
        return tensors[data["tensor"]]
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        if data is None and type(None) in arguments:
            return None
        return _decode(next(a for a in arguments if a is not type(None)), data, tensors)
    if kind is float:
        return math.nan if data is None else float(data)
    if is_dataclass(kind):
        hints = _hints(kind)
        make: Any = kind
        return make(**{name: _decode(hints[name], item, tensors) for name, item in data.items()})
    if origin is tuple:
        kinds = [arguments[0]] * len(data) if arguments[-1] is Ellipsis else arguments
        return tuple(_decode(k, item, tensors) for k, item in zip(kinds, data, strict=True))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return {_decode(arguments[0], k, tensors): _decode(arguments[1], v, tensors) for k, v in data}
    return data


_KNOWN_HINTS: dict[Any, dict[str, Any]] = {}


def _hints(kind: Any) -> dict[str, Any]:
    """Field types of a dataclass (evaluating the annotations is slow, so once a class)."""
    if kind not in _KNOWN_HINTS:
        _KNOWN_HINTS[kind] = get_type_hints(kind)
    return _KNOWN_HINTS[kind]
