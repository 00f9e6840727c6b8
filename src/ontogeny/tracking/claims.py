"""The verdicts on the paper's claims in MLflow: one run for each state of them, in the experiment ``STUDY/claims``."""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import pandas as pd

from ontogeny.series import claim_metrics, claims_tree
from ontogeny.tracking.content import CURRENT, FINGERPRINT, NOTE, Point, RunContent
from ontogeny.tracking.publishing import (
    PublishReport,
    Tally,
    mark_current,
    open_experiment,
    open_shelf,
    write_run,
    written,
)
from ontogeny.tracking.store import Store

log = logging.getLogger(__name__)
CLAIMS: Final = "claims"
_NOTE_OF_ALL: Final = (
    "**One run is one state of the study, with a verdict on each of the paper's claims C1 to C12.** Select several "
    "runs and press *Compare* to see what a setting changed: the tags `verdict.C1` ... say the verdicts, the metrics "
    "`C1/statistic`, `C1/low` and `C1/high` the number that decided and its interval. *Artifacts* have the table "
    "(`claims.csv`), every rule and reason (`claims.json`) and the picture. `tags.current = 'true'` is the last state."
)


@dataclass(frozen=True)
class ClaimsProjection:
    """What is to be shown of a study's verdicts."""

    claims: pd.DataFrame
    """As `series.Trajectory.claims`."""
    study: str
    """The experiment is named STUDY/claims."""
    moment: float
    """Seconds since the epoch at which the last job behind them finished."""
    rules: Mapping[str, Any] = field(default_factory=dict)
    """The params `trajectory.claims`."""
    files: Mapping[str, bytes] = field(default_factory=dict)
    """Pictures, by path."""
    commit: str | None = None
    """Of git."""

    @property
    def fingerprint(self) -> str:
        """The same verdicts, numbers and rules are the same run."""
        facts = json.dumps([CLAIMS, self.study, claims_tree(self.claims)], sort_keys=True)
        return hashlib.sha256(facts.encode()).hexdigest()[:32]

    def run(self) -> RunContent:
        """The run."""
        metrics = claim_metrics(self.claims)[CLAIMS]
        tree = claims_tree(self.claims)
        numbers = {
            f"{claim}/{name}": value
            for claim, values in metrics.items()
            for name, value in values.items()
            if isinstance(value, float | int) and math.isfinite(value)
        }
        tags = {f"verdict.{claim}": str(values["verdict"]) for claim, values in metrics.items()}
        tags |= {"kind": "claims", FINGERPRINT: self.fingerprint, CURRENT: "true", "mlflow.source.name": "ontogeny"}
        tags |= {NOTE: _note(tree)}
        tags |= {"git_commit": self.commit, "mlflow.source.git.commit": self.commit} if self.commit else {}
        table = {"claims.json": json.dumps(tree, indent=1).encode(), "claims.csv": _csv(self.claims)}
        return RunContent(
            name="claims",
            tags=tags,
            params={name: json.dumps(value) for name, value in self.rules.items()},
            points=[Point(name, float(value), 0, self.moment) for name, value in numbers.items()],
            files=table | dict(self.files),
            dataset=None,
            seconds=self.moment,
        )


def publish_claims(projection: ClaimsProjection, store: Store) -> PublishReport:
    """Make `store` show the verdicts. A store that cannot be reached, or goes away, is reported, not raised."""
    tally, name = Tally(), f"{projection.study}/{CLAIMS}"
    reason = written(store, tally, lambda: _project(projection, store, name, tally))
    if reason:
        log.warning("The claims could not be published: %s. `ontogeny publish` adds them later.", reason)
    return PublishReport(store.uri, (name,), 1, **vars(tally), reason=reason)


def _project(projection: ClaimsProjection, store: Store, name: str, tally: Tally) -> None:
    client = store.client()
    tags = {NOTE: _NOTE_OF_ALL, "mlflow.experimentKind": "custom_model_development"}
    shelf = open_shelf(client, store, open_experiment(client, store, name, lambda _: tags), tally)
    if projection.fingerprint in shelf.finished:
        tally.kept = 1
    else:
        write_run(client, shelf.experiment, projection.run())
        tally.added = 1
    mark_current(client, shelf, {projection.fingerprint}, tally)


def _note(tree: Mapping[str, Any]) -> str:
    lines = [f"| {name} | {each['claim']} | **{each['verdict']}** | {each['why']} |" for name, each in tree.items()]
    return "\n".join(["| | claim | verdict | why |", "|---|---|---|---|", *lines])


def _csv(claims: pd.DataFrame) -> bytes:
    text: str = claims.to_csv(index=False)
    return text.encode()
