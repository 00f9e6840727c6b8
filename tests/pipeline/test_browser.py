"""What a person sees in MLflow's user interface, in a real browser: the steps of docs/tracking.md.

`ONTOGENY_SCREENSHOTS=FOLDER` keeps what was on the screen.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from ontogeny.figures import draw_bundle
from ontogeny.params import TrajectoryParams
from ontogeny.series import follow
from ontogeny.tracking import Projection, Store, open_store, publish, ui_command, view_addresses
from support.browser import Page, browser, lacks_browser, save
from support.server import free_port
from support.synthetic_study import member

SCALES = ("deep", "small")
STEPS = (0, 128, 512, 1024, 1448, 1722)
TASKS = ("ioi", "sva")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(lacks_browser()), reason=lacks_browser() or "a browser is here"),
]


@dataclass(frozen=True)
class Site:
    """A page, and the user interface that it looks at."""

    page: Page
    root: str
    addresses: dict[str, str]
    """Of the saved views, as `ontogeny ui` prints them."""
    store: Store

    def keep(self, name: str) -> None:
        save(self.page.picture(), os.environ.get("ONTOGENY_SCREENSHOTS"), name)

    def go(self, view: str) -> None:
        """Open a saved view and wait for its runs; the assistant's panel, open at first, is closed."""
        self.page.open(self.addresses[view])
        self.matching()
        self.page.until(_CLOSED_ASSISTANT, "the assistant's panel to close")

    def matching(self, count: int | None = None) -> int:
        """Wait until the interface says how many runs match: this many if given, else any."""
        wanted = r"[1-9]\d*" if count is None else str(count)
        self.page.until(f"/(^|\\s){wanted}\\s+matching runs?/.test(document.body.innerText)", f"{wanted} matching runs")
        found = re.search(r"(\d+)\s+matching runs?", self.page.text())
        assert found is not None
        return int(found[1])

    def rows(self) -> list[dict[str, str]]:
        """Cells of the table by the name of their column, the run's name as `name`, in the order on the screen."""
        return list(json.loads(self.page.run(_ROWS)))


_CLOSED_ASSISTANT = """(() => {
  if (!document.querySelector("[aria-label='New Chat']")) return true;
  [...document.querySelectorAll("[aria-label='Close']")].at(-1).click();
  return false;
})()"""
_ROWS = """JSON.stringify((() => {
  const cells = row => Object.fromEntries([...row.querySelectorAll('[role=gridcell]')].map(
    cell => [cell.getAttribute('col-id').replaceAll('`', ''), cell.innerText]));
  const rows = [...document.querySelectorAll('.ag-center-cols-container [role=row]')];
  const by = index => [...document.querySelectorAll(`.ag-pinned-left-cols-container [row-index="${index}"] a`)];
  return rows
    .map(row => [Number(row.getAttribute('row-index')), row])
    .sort((a, b) => a[0] - b[0])
    .map(([index, row]) => ({name: (by(index)[0] || {}).innerText, ...cells(row)}));
})())"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Two scales, six checkpoints, two tasks; the pictures of one run."""
    records = [member(scale, STEPS, TASKS) for scale in SCALES]
    (last,) = [a for a in records[0].analyses if a.ref.step == STEPS[-1]]
    drawn = {records[0].fingerprints[STEPS[-1], "ioi"]: draw_bundle(last, "ioi")}
    made = open_store(tmp_path_factory.mktemp("ui"))
    report = publish(
        Projection(
            records=records,
            trajectory=follow(records, TrajectoryParams()),
            study="walk",
            settings={"analyse": {"search": {"threshold": 0.8}}},
            now=1_760_000_000.0,
            finished_at=lambda _: 1_750_000_000.0,
            bundle=drawn.get,
        ),
        made,
    )
    assert (report.complete, report.added) == (True, len(SCALES) * len(TASKS) * (len(STEPS) + 1))
    return made


@pytest.fixture(scope="module")
def site(store: Store) -> Iterator[Site]:
    """`ontogeny ui` on that store, and a browser in front of it."""
    assert store.database is not None
    port = free_port()
    command = ui_command(store.database.parents[1], uri=store.uri, port=port)
    environment = {k: v for k, v in os.environ.items() if k != "MLFLOW_TRACKING_URI"}
    server = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    root = f"http://127.0.0.1:{port}/"
    try:
        deadline = time.monotonic() + 600
        while Store(root.rstrip("/")).unreachable() is not None:
            assert server.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.5)
        with browser() as page:
            page.size(1600, 1000)
            yield Site(page, root, view_addresses(store, root), store)
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def test_a_newcomer_finds_the_charts_on_the_page_of_the_experiment(site: Site) -> None:
    """The description is folded to one line: the links must be on it, where a mouse can reach them."""
    address = site.addresses["walk/trajectories, ioi"]
    site.page.open(re.sub(r"viewStateShareKey=[^&]*&compareRunsMode=CHART&", "", address))
    assert site.matching() == len(SCALES) * len(TASKS)
    site.page.until_text("One run is one task followed through the training of one model.", "Views")
    site.keep("experiment")
    link = site.page.until(_REACHABLE_LINK % "ioi", "a link that can be clicked")
    site.page.open(site.root + link)
    site.matching(len(SCALES))
    site.page.until("document.querySelectorAll('.js-plotly-plot').length >= 3", "charts behind the link")


_REACHABLE_LINK = """(() => {
  for (const link of document.querySelectorAll('a')) {
    const box = link.getBoundingClientRect();
    if (link.innerText !== '%s') continue;
    if (document.elementFromPoint(box.x + box.width / 2, box.y + box.height / 2) === link)
      return link.getAttribute('href');
  }
  return null;
})()"""


def test_trajectories_lay_the_scales_over_each_other_on_a_logarithmic_axis(site: Site) -> None:
    site.go("walk/trajectories, ioi")
    assert site.matching() == len(SCALES)
    charts = json.loads(site.page.until(_CHARTS % len(SCALES), "lines of all scales in three charts"))
    site.keep("trajectories")
    assert "behaviour/held_out/metric" in site.page.text()
    for chart in charts:
        assert chart["axis"] == "log"
        assert {name.split()[0] for name in chart["lines"]} == {f"{scale}-s0" for scale in SCALES}
    colours = {colour[:7] for chart in charts for colour in chart["colours"]}  # Bands are paler: two more digits.
    assert len(colours) == len(SCALES)
    assert all(set(chart["steps"]) <= set(STEPS) for chart in charts)
    assert max(max(chart["steps"]) for chart in charts) == STEPS[-1]


_CHARTS = """(() => {
  const charts = [...document.querySelectorAll('.js-plotly-plot')].filter(c => c.data && c.data.length >= %d);
  if (charts.length < 3) return null;
  return JSON.stringify(charts.map(c => ({
    axis: c.layout.xaxis.type,
    lines: c.data.map(line => line.name),
    colours: c.data.map(line => (line.line || {}).color || (line.marker || {}).color).filter(Boolean),
    steps: c.data.flatMap(line => [...line.x].map(Number)),
  })));
})()"""


def test_checkpoints_are_filtered_by_tags_and_sorted_by_tokens(site: Site) -> None:
    site.go("walk/checkpoints, ioi")
    assert site.matching() == len(SCALES) * len(STEPS)
    site.keep("checkpoints")
    latest = [int(row["metrics.tokens"]) for row in site.rows()]
    assert latest == sorted(latest, reverse=True)
    assert len(set(latest)) > 3

    site.page.fill("[data-testid=search-box]", "tags.task = 'sva' and tags.scale = 'deep' and tags.status = 'found'")
    wanted = [run for run in _runs(site.store) if run["task"] == "sva" and run["scale"] == "deep"]
    found = [run for run in wanted if run["status"] == "found"]
    assert 0 < len(found) < len(wanted), "the filter has something to do"
    site.matching(len(found))
    site.page.until(
        f"document.querySelectorAll('.ag-center-cols-container [role=row]').length === {len(found)}",
        "rows of the filter",
    )
    rows = site.rows()
    assert {row["tags.scale"] for row in rows} == {"deep"}
    assert {row["tags.status"] for row in rows} == {"found"}

    site.page.click("[data-testid='sort-header-tokens']")
    earliest = sorted(int(run["tokens"]) for run in found)
    site.page.until(
        f"(() => {{ const rows = {_ROWS}; return JSON.parse(rows)[0]['metrics.tokens'] === '{earliest[0]}'; }})()",
        "the earliest checkpoint first",
    )
    site.keep("filtered")
    assert [int(row["metrics.tokens"]) for row in site.rows()] == earliest


def _runs(store: Store) -> list[dict[str, str]]:
    """Tags of the checkpoint runs."""
    client = store.client()
    experiment = client.get_experiment_by_name("walk/checkpoints")
    assert experiment is not None
    return [dict(run.data.tags) for run in client.search_runs([experiment.experiment_id])]


def test_a_run_has_its_circuit_as_picture_table_curve_and_page(site: Site) -> None:
    """From the table to the run, and through its artifacts."""
    site.go("walk/checkpoints, ioi")
    site.page.click("[role=row] a", f"deep-s0 {STEPS[-1]} ioi")
    site.page.until_text("ioi by deep-s0 after 1,722 steps", "The smallest faithful circuit keeps")
    site.keep("run")
    site.page.click("[role=tab]", "Artifacts")

    _open(site.page, "circuit", "circuit.png")
    width, height = site.page.until(_LARGEST_PICTURE, "the circuit's picture")
    assert (width > 500, height > 200) == (True, True)
    site.keep("circuit")

    _open(site.page, None, "edges.csv")
    site.page.until_text("score", "input->", "edge", "writer", "reader")
    site.keep("edges")

    _open(site.page, None, "circuit.html")
    text = site.page.until(
        "(async () => { const frame = document.querySelector('iframe.mlflow-html-iframe');"
        " return frame && frame.src ? await (await fetch(frame.src)).text() : null; })()",
        "the page of the circuit",
    )
    assert "circuit of deep-s0" in text
    assert "<svg" in text
    site.keep("page")

    _open(site.page, "faithfulness", "faithfulness.svg")
    site.page.until_text("faithfulness/faithfulness.svg")
    assert site.page.until(_LARGEST_PICTURE, "the curve's picture")[0] > 300
    site.keep("faithfulness")
    assert site.page.errors == []


_LARGEST_PICTURE = """(() => {
  const sizes = [...document.querySelectorAll('img')].map(i => [i.naturalWidth, i.naturalHeight]);
  const best = sizes.sort((a, b) => b[0] - a[0])[0];
  return best && best[0] > 300 ? best : null;
})()"""


def _open(page: Page, folder: str | None, name: str) -> Any:
    """Click a file in the tree of artifacts, its folder first if it is closed."""
    if folder is not None:
        page.click(f"[data-testid=artifact-tree-node][artifact-name='{folder}']")
    page.until(f"document.querySelector(\"[artifact-name='{name}']\") !== null", f"{name} in the tree")
    page.click(f"[data-testid=artifact-tree-node][artifact-name='{name}']")
