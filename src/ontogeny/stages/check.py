"""Checks of params.yaml that need to know what there is: done before any work."""

from __future__ import annotations

from ontogeny.core.errors import OntogenyError
from ontogeny.params import Params


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
