"""Writing what a study over settings recommends into a params file."""

from __future__ import annotations

import difflib
import io
from pathlib import Path
from typing import Any

from ontogeny.core.errors import OntogenyError
from ontogeny.core.tuning import Setting, TuningRecord
from ontogeny.records.datasets import read_dataset
from ontogeny.records.files import replacing
from ontogeny.records.tuning import read_tuning
from ontogeny.stages.studies import find_study
from ontogeny.stages.study import Study
from ontogeny.stages.tune import tuning_places


def adopt(study: Study, name: str, params_file: Path, *, write: bool = True) -> str:
    """Write what a study recommends into a params file, its comments kept; the difference as text.

    Raises:
        OntogenyError: an unknown study, one that recommends nothing, or one that was made with other data.
    """
    record = read_tuning(find_study(study, name))
    _refuse_other_data(study, record)
    chosen = record.adoptable.setting
    if chosen is None:
        raise OntogenyError(f"The study {name!r} recommends nothing to adopt: {record.adoptable.reason}")
    before = params_file.read_text(encoding="utf-8")
    after = with_setting(before, chosen)
    if write and after != before:
        with replacing(params_file) as temporary:
            temporary.write_text(after, encoding="utf-8")
    lines = difflib.unified_diff(
        before.splitlines(keepends=True), after.splitlines(keepends=True), params_file.name, params_file.name, n=1
    )
    return "".join(lines)


def with_setting(text: str, chosen: Setting) -> str:
    """A params file's text with the setting of `analyse`; comments and layout stay."""
    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 10_000
    data = yaml.load(text)
    attribution, search = data["analyse"]["attribution"], data["analyse"]["search"]
    wanted: list[tuple[Any, str, object]] = [
        (attribution, "method", chosen.method),
        (search, "selection", chosen.selection),
    ]
    wanted.append((search, "threshold", chosen.threshold))
    if chosen.steps:
        wanted += [(attribution, "steps", chosen.steps), (attribution, "rule", chosen.rule)]
    for section, key, value in wanted:
        section[key] = value
    stream = io.StringIO()
    yaml.dump(data, stream)
    return _only_changed_lines(text, stream.getvalue())


def _only_changed_lines(before: str, after: str) -> str:
    """`after`, with every line as it was in `before` that says the same."""
    import yaml

    wanted, lines = yaml.safe_load(after), after.splitlines(keepends=True)
    old = before.splitlines(keepends=True)
    if len(old) != len(lines):
        return after
    for place, line in enumerate(old):
        if line != lines[place] and yaml.safe_load("".join([*lines[:place], line, *lines[place + 1 :]])) == wanted:
            lines[place] = line
    return "".join(lines)


def _refuse_other_data(study: Study, record: TuningRecord) -> None:
    """Raises: OntogenyError: the data set or a checkpoint is another one now."""
    from ontogeny.tuning.study import check_facts

    made_with: dict[str, Any] = {"dataset": record.dataset}
    made_with |= {f"weights of {c.name}": c.weights for c in record.checkpoints}
    now: dict[str, Any] = {"dataset": read_dataset(study.dataset(record.task)).digest}
    now |= {f"weights of {c.name}": _weights_now(study, record.task, c.name) for c in record.checkpoints}
    check_facts(record.name, made_with, now)


def _weights_now(study: Study, task: str, checkpoint: str) -> str:
    try:
        return tuning_places(study, task, [checkpoint])[0].ref.weights_digest
    except OntogenyError:
        return "not there"
