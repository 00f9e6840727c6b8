"""Saved views of the MLflow UI: for each task, the charts and the table that people want first.

The UI (3.17; *Views*, top right of an experiment's runs) keeps a view as a tag of the experiment: JSON whose `state` is
deflated and in base64. We write such tags, so that a newcomer opens *IOI across scales* instead of building it. A UI
that does not know them shows nothing of them.
"""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

from ontogeny.series import (
    METRICS,
    algorithm_quantity,
    behaviour_quantity,
    faithfulness_quantity,
    role_quantity,
    similarity_quantity,
)
from ontogeny.tracking.content import CHECKPOINTS, CURRENT, TRAJECTORIES

_TAG: Final = "mlflow.sharedViewState."
_MADE_MS: Final = 1_795_305_600_000
"""A view's date: fixed, so that the same view is the same tag."""

WORKFLOW: Final = "workflowType=machine_learning"
"""Without it MLflow 3 opens an experiment as one of language model traces."""

_CHARTS: Final[Mapping[str, tuple[str, ...]]] = {
    "Ability, on held-out prompts": (
        behaviour_quantity("held_out"),
        behaviour_quantity("held_out", "accuracy"),
        behaviour_quantity("held_out", "rank0"),
    ),
    "Circuit": (
        "circuit/edges",
        "circuit/edges_share",
        "circuit/found",
        faithfulness_quantity("held_out"),
        "circuit/nodes",
        "circuit/cpr",
    ),
    "Is it still the same circuit?": (
        similarity_quantity("edges", "previous_ewma"),
        similarity_quantity("edges_weighted", "previous_ewma"),
        similarity_quantity("edges_weighted", "final"),
    ),
    "Who does what (score of the best head)": tuple(
        role_quantity(role) for role in ("induction", "successor", "name_mover", "copy_suppression", "s_inhibition")
    ),
    "Is it still the same algorithm? (IOI, per cent)": tuple(algorithm_quantity(metric) for metric in METRICS),
}
_COLUMNS: Final = (
    "tags.`scale`",
    "tags.`status`",
    "metrics.`step`",
    "metrics.`tokens`",
    f"metrics.`{behaviour_quantity('held_out')}`",
    f"metrics.`{behaviour_quantity('held_out', 'accuracy')}`",
    "metrics.`circuit/edges`",
    "metrics.`circuit/nodes`",
    f"metrics.`{faithfulness_quantity('held_out')}`",
)


def saved_views(kind: str, tasks: Sequence[str]) -> dict[str, str]:
    """Tags of an experiment: a view a task."""
    make = {TRAJECTORIES: _charts, CHECKPOINTS: _table}[kind]
    names = {TRAJECTORIES: "{} across scales", CHECKPOINTS: "{} checkpoints"}
    return {f"{_TAG}{view_key(task)}": _packed(names[kind].format(task), make(task)) for task in tasks}


def view_address(kind: str, experiment: str, task: str) -> str:
    """Address of a saved view, from the UI's root on."""
    mode = "&compareRunsMode=CHART" if kind == TRAJECTORIES else ""
    return f"#/experiments/{experiment}/runs?viewStateShareKey={view_key(task)}{mode}&{WORKFLOW}"


def view_links(kind: str, experiment: str, tasks: Sequence[str]) -> str:
    """Markdown links to the saved views."""
    return ", ".join(f"[{task}]({view_address(kind, experiment, task)})" for task in tasks)


def tasks_of_views(tags: Mapping[str, str]) -> list[str]:
    """Tasks that an experiment has saved views of ours for."""
    prefix = _TAG + view_key("")
    return [key.removeprefix(prefix) for key in tags if key.startswith(prefix)]


def view_key(task: str) -> str:
    """Key of a task's view in the UI's address."""
    return f"ontogeny-{task}"


def _state(task: str, **more: Any) -> dict[str, Any]:
    state = {
        "searchFilter": f"tags.{CURRENT} = 'true' and tags.task = '{task}'",
        "orderByKey": "attributes.start_time",
        "orderByAsc": False,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": [],
        "columnOrder": [],
        "columnWidths": {},
        "runsHiddenMode": "SHOWALL",
        "viewMaximized": False,
        "runListHidden": False,
        "isAccordionReordered": True,
        "useGroupedValuesInCharts": True,
        "hideEmptyCharts": True,
        "groupBy": None,
        "groupsExpanded": {},
        "globalLineChartConfig": {"xAxisKey": "step", "lineSmoothness": 0, "selectedXAxisMetricKey": ""},
    }
    return state | more


def _table(task: str) -> dict[str, Any]:
    """The latest checkpoints first."""
    return _state(task, selectedColumns=list(_COLUMNS), orderByKey="metrics.`tokens`")


def _charts(task: str) -> dict[str, Any]:
    """Lines over the training step on a logarithmic axis (step 0 is not on it)."""
    sections = [
        {"uuid": _id(name), "name": name, "display": True, "isReordered": True, "deleted": False, "isGenerated": False}
        for name in _CHARTS
    ]
    charts = [
        {
            "uuid": _id(section + metric),
            "type": "LINE",
            "runsCountToCompare": 30,
            "metricSectionId": _id(section),
            "deleted": False,
            "isGenerated": False,
            "metricKey": metric,
            "selectedMetricKeys": [metric],
            "lineSmoothness": 0,
            "xAxisScaleType": "log",
            "scaleType": "linear",
            "range": {},
            "xAxisKey": "step",
            "selectedXAxisMetricKey": "",
            "yAxisKey": "metric",
            "yAxisExpressions": [],
            "ignoreOutliers": False,
            "useGlobalXaxisKey": False,
            "useGlobalLineSmoothing": True,
        }
        for section, metrics in _CHARTS.items()
        for metric in metrics
    ]
    return _state(task, compareRunCharts=charts, compareRunSections=sections)


def _packed(name: str, state: Mapping[str, Any]) -> str:
    deflated = zlib.compress(json.dumps(state, separators=(",", ":")).encode(), 9)
    text = f"deflate;{base64.b64encode(deflated).decode()}"
    return json.dumps({"name": name, "createdAt": _MADE_MS, "updatedAt": _MADE_MS, "state": text})


def _id(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:20]
