"""What a person sees in MLflow's user interface, in a real browser: the steps of docs/tracking.md.

`ONTOGENY_SCREENSHOTS=FOLDER` keeps what was on the screen.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

import pytest

from ontogeny.figures import draw_bundle
from ontogeny.params import TrajectoryParams
from ontogeny.series import follow
from ontogeny.tracking import Projection, Store, open_store, publish
from support.browser import lacks_browser, save
from support.site import ROWS, Site, site_of
from support.synthetic_study import member

SCALES = ("deep", "small")
STEPS = (0, 128, 512, 1024, 1448, 1722)
TASKS = ("ioi", "sva")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(lacks_browser()), reason=lacks_browser() or "a browser is here"),
]


def keep(site: Site, name: str) -> None:
    """Keep what is on the screen, if a folder is named for it."""
    save(site.page.picture(), os.environ.get("ONTOGENY_SCREENSHOTS"), name)


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
    with site_of(store) as found:
        yield found


def test_a_newcomer_finds_the_charts_on_the_page_of_the_experiment(site: Site) -> None:
    """The description is folded to one line: the links must be on it, where a mouse can reach them."""
    address = site.addresses["walk/trajectories, ioi"]
    site.page.open(re.sub(r"viewStateShareKey=[^&]*&compareRunsMode=CHART&", "", address))
    assert site.matching() == len(SCALES) * len(TASKS)
    site.page.until_text("One run is one task followed through the training of one model.", "Views")
    keep(site, "experiment")
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
    charts = site.charts(len(SCALES))
    keep(site, "trajectories")
    assert "behaviour/held_out/metric" in site.page.text()
    for chart in charts:
        assert chart["axis"] == "log"
        assert {name.split()[0] for name in chart["lines"]} == {f"{scale}-s0" for scale in SCALES}
    colours = {colour[:7] for chart in charts for colour in chart["colours"]}  # Bands are paler: two more digits.
    assert len(colours) == len(SCALES)
    assert all(set(chart["steps"]) <= set(STEPS) for chart in charts)
    assert max(max(chart["steps"]) for chart in charts) == STEPS[-1]


def test_checkpoints_are_filtered_by_tags_and_sorted_by_tokens(site: Site) -> None:
    site.go("walk/checkpoints, ioi")
    assert site.matching() == len(SCALES) * len(STEPS)
    keep(site, "checkpoints")
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
        f"(() => {{ const rows = {ROWS}; return JSON.parse(rows)[0]['metrics.tokens'] === '{earliest[0]}'; }})()",
        "the earliest checkpoint first",
    )
    keep(site, "filtered")
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
    keep(site, "run")
    site.page.click("[role=tab]", "Artifacts")

    site.open_file("circuit", "circuit.png")
    width, height = site.picture_size()
    assert (width > 500, height > 200) == (True, True)
    keep(site, "circuit")

    site.open_file(None, "edges.csv")
    site.page.until_text("score", "input->", "edge", "writer", "reader")
    keep(site, "edges")

    site.open_file(None, "circuit.html")
    text = site.page.until(
        "(async () => { const frame = document.querySelector('iframe.mlflow-html-iframe');"
        " return frame && frame.src ? await (await fetch(frame.src)).text() : null; })()",
        "the page of the circuit",
    )
    assert "circuit of deep-s0" in text
    assert "<svg" in text
    keep(site, "page")

    site.open_file("faithfulness", "faithfulness.svg")
    site.page.until_text("faithfulness/faithfulness.svg")
    assert site.picture_size()[0] > 300
    keep(site, "faithfulness")
    assert site.page.errors == []
