"""The queries of docs/tracking.md are asked of a store: MLflow takes each of them, and those that can find runs do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient
from test_publishing import blank, projection, runs_of, small, store

from ontogeny.tracking import Store, publish

__all__ = ["blank", "store"]

PAGE = (Path(__file__).parents[3] / "docs" / "tracking.md").read_text(encoding="utf-8")
FILTERS = re.findall(r"^\| [^|`]*\| (`+)(tags\..*?)\1", PAGE, flags=re.MULTILINE)
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
OURS = {"default/": "test/", "large": "deep"}
"""What the page's study is called here."""


def translated(text: str) -> str:
    for theirs, ours in OURS.items():
        text = text.replace(theirs, ours)
    return text


@pytest.fixture
def published(store: Store) -> Store:
    assert publish(projection(small()), store).complete
    return store


@pytest.fixture
def _no_address_is_left() -> Iterator[None]:
    yield
    mlflow.set_tracking_uri(None)


def test_every_filter_of_the_page(published: Store) -> None:
    client = MlflowClient(published.uri)
    experiment = client.get_experiment_by_name("test/checkpoints")
    assert experiment is not None
    found = [len(client.search_runs([experiment.experiment_id], translated(query))) for _, query in FILTERS]
    assert len(found) >= 6
    assert found[0] == 6
    assert 0 < found[1] <= 3
    assert 0 < found[2] < 6


@pytest.mark.usefixtures("_no_address_is_left")
def test_every_python_block_of_the_page(published: Store, capsys: pytest.CaptureFixture[str]) -> None:
    (run, *_) = [run for run in runs_of(published) if run.data.tags["status"] == "found"]
    names: dict[str, object] = {"RUN_ID": run.info.run_id}
    assert len(BLOCKS) == 3
    for block in BLOCKS:
        exec(translated(block).replace("sqlite:///mlruns/mlflow.db", published.uri), names)
    shown = capsys.readouterr().out
    assert "deep" in shown
    assert re.search(r"^1722 \d", shown, flags=re.MULTILINE)
    assert (Path(str(names["folder"])) / "edges.csv").exists()
