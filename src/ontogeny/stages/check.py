"""Checks of params.yaml that need to know what there is: done before any work."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from ontogeny.core.errors import OntogenyError
from ontogeny.params import Params, TextParams, load_params

if TYPE_CHECKING:
    from ontogeny.stages.study import Study


def check_params(params: Params) -> None:
    """Refuse names that nothing bears.

    Raises:
        OntogenyError: an unknown task or corruption; the message names each key and what is allowed.
    """
    from ontogeny.tasks import get_task, task_names

    known = task_names()
    problems = [
        f"  {key}: there is no task {name!r}; choose from {', '.join(known)}"
        for key, names in (
            ("datasets.tasks", params.datasets.tasks),
            ("datasets.sizes", params.datasets.sizes),
            ("datasets.corruptions", params.datasets.corruptions),
        )
        for name in names
        if name not in known
    ]
    for name, corruption in params.datasets.corruptions.items():
        if name in known and corruption not in get_task(name).corruptions:
            allowed = ", ".join(get_task(name).corruptions)
            problems.append(f"  datasets.corruptions.{name}: no corruption {corruption!r}; choose from {allowed}")
    if problems:
        raise OntogenyError("params.yaml is refused:\n" + "\n".join(problems))


def check_machine(params: Params) -> None:
    """Refuse a device or an executor that is not to be had here.

    Raises:
        OntogenyError: torch has no such device, or Ray is not installed; says what to do.
    """
    from ontogeny.execution.devices import check_device
    from ontogeny.execution.ray_executor import import_ray

    if params.execution.executor == "ray":
        import_ray()
    elif params.execution.device != "cpu":
        check_device(params.execution.device)


def check_suite(study: Study) -> None:
    """Refuse a suite that cannot be had: unknown models or steps, no tokenizer, another one; nothing is downloaded.

    Raises:
        OntogenyError: says what was asked for, what there is, and what to do.
    """
    from ontogeny.stages.corpus import check_text

    if isinstance(study.params.corpus, TextParams):
        check_text(study, study.params.corpus)
    study.source.check()


def check_study_name(params: Params, file: Path, project: Path) -> None:
    """Refuse a profile that bears the name of the project's own study: each would retire the other's runs in MLflow.

    Raises:
        OntogenyError: it does; the message says where to change it.
    """
    own = load_params(project / "params.yaml").tracking.study
    if params.tracking.study == own:
        raise OntogenyError(
            f"{file} is refused:\n  tracking.study: {own!r} is the name of the study in params.yaml; "
            f"give this one a name of its own, e.g. {file.stem}"
        )


def check_folder(folder: Path, option: str = "") -> None:
    """Refuse what cannot be a folder, before any work; `option` is what it was given by.

    Raises:
        OntogenyError: a file is in the way, or the name is none.
    """
    try:
        os.listdir(folder)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise OntogenyError(
            f"{option} {folder}: {error.strerror}; expected a new or an existing folder.".lstrip()
        ) from None
