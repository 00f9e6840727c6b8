"""Makes the pictures in docs/assets and prints the table of docs/tuning.md, from a study that has been published.

    PYTHONPATH=tests .venv/bin/python -m support.docs            # everything
    PYTHONPATH=tests .venv/bin/python -m support.docs mlflow     # only the screenshots; or: pictures, tuning

Run it in the project's root after `make study`. Screenshots need Chromium. Look at what it made. The pictures of
docs/series.md are made by `ontogeny series` from published tables, see there.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from ontogeny.core.tuning import TuningRecord
from ontogeny.figures.bundle import open_bundle
from ontogeny.figures.tuning import threshold_rows
from ontogeny.records import MemberRecord
from ontogeny.records.tuning import RECORD, read_tuning
from ontogeny.stages.publish import Pictures
from ontogeny.stages.study import Study, open_study
from ontogeny.stages.trajectory import read_records
from ontogeny.tracking import open_store
from support.browser import lacks_browser, save
from support.site import Site, site_of

ASSETS = Path("docs") / "assets"
TASK = "ioi"


def largest(study: Study) -> MemberRecord:
    """The member with the most parameters; of several seeds the first."""
    return max(read_records(study), key=lambda record: record.analyses[-1].model.parameters)


def pictures(study: Study) -> None:
    """The overview of the study, and the circuit of the largest member's last checkpoint."""
    shutil.copy(study.figures / "overview.png", ASSETS / "overview.png")
    record = largest(study)
    key = record.analyses[-1].ref.step, TASK
    bundle = Pictures(study.places.cache / "pictures").read(record.fingerprints[key])
    if bundle is None or "circuit.png" not in open_bundle(bundle):
        sys.exit(f"{record.member} has no drawn circuit of {TASK} at step {key[0]}: run `ontogeny publish` first.")
    (ASSETS / f"circuit-{TASK}.png").write_bytes(open_bundle(bundle)["circuit.png"])


def mlflow(study: Study) -> None:
    """The screenshots of docs/tracking.md."""
    if reason := lacks_browser():
        sys.exit(reason)
    name, record = study.params.tracking.study, largest(study)
    with site_of(open_store(study.places.project, study.params.tracking.uri)) as site:
        site.page.size(1500, 1000)
        site.page.open(site.root)
        site.page.until_text("Model training")
        site.page.run(_CHOOSE_TRAINING)
        site.go(f"{name}/trajectories, {TASK}")
        site.charts(len(read_records(study)))
        keep(site, "mlflow-trajectories")
        site.go(f"{name}/checkpoints, {TASK}")
        keep(site, "mlflow-checkpoints")
        site.open_run(f"{record.member} {record.analyses[-1].ref.step} {TASK}")
        site.open_file("circuit", "circuit.html")
        site.page.until(_SHOWN, "the page of the circuit")
        keep(site, "mlflow-circuit")


def keep(site: Site, name: str) -> None:
    """A screenshot without what is only there for the mouse."""
    site.page.run(_TIDY)
    time.sleep(_SETTLE_S)
    save(site.page.picture(), ASSETS, name)


_SETTLE_S = 2.0
"""For what the page still draws."""
_CHOOSE_TRAINING = """(() => {
  const named = [...document.querySelectorAll('button, label, span, div')].filter(
    e => (e.innerText || '').trim() === 'Model training');
  if (named.length) named.at(-1).click();
})()"""
_TIDY = """(() => {
  const style = document.createElement('style');
  style.textContent = '.modebar { display: none }';
  document.head.append(style);
  const inner = [...document.querySelectorAll('div, span')].filter(e => (e.innerText || '').startsWith('Path: file:'));
  if (inner.length) inner.at(-1).style.visibility = 'hidden';  // it names a folder of this machine
  const note = [...document.querySelectorAll('div')].find(
    e => (e.innerText || '').startsWith("You're viewing a shared view") && e.querySelector("[aria-label='Close']"));
  if (note) note.querySelector("[aria-label='Close']").click();
})()"""
_SHOWN = """(async () => {
  const frame = document.querySelector('iframe.mlflow-html-iframe');
  return frame && frame.src ? (await (await fetch(frame.src)).text()).includes('<svg') : false;
})()"""


def tuning(study: Study) -> None:
    """The table of docs/tuning.md, to standard output."""
    folders = [study.tuned(task) for task in study.params.datasets.tasks]
    records = [read_tuning(folder) for folder in folders if (folder / RECORD).exists()]
    columns = {record.task: dict(answers(record)) for record in records if record.trials}
    lines = list(dict.fromkeys(line for column in columns.values() for line in column))
    print(f"| | {' | '.join(columns)} |\n|---{'|---' * len(columns)}|")  # noqa: T201
    for line in lines:
        print(f"| {line} | {' | '.join(column.get(line, '-') for column in columns.values())} |")  # noqa: T201


def answers(record: TuningRecord) -> Iterator[tuple[str, str]]:
    """Question and answer, a row each."""
    best = record.recommended
    yield "recommended", "nothing" if best.setting is None else str(best.setting)
    yield "edges kept; passes", f"{best.edges:.1%}; {best.passes:,.0f}"
    yield "least faithfulness on `held_out`", f"{best.held_out:.2f}"
    for e in record.enough:
        yield f"fewest steps that are enough, {e.checkpoint}, rule `{e.rule}`", _steps(e.steps, e.largest)
    for row in threshold_rows(record).to_dict("records"):
        label = f"edges kept at {row['checkpoint']}, τ = {row['threshold']:g} ({row['setting']})"
        yield label, _share(row["edges"], row["edges_low"], row["edges_high"])
    for c in record.carried:
        if c.source != c.target:
            size = f"{c.edges.value / c.own_edges:.2f} × the best there" if c.own_edges > 0 else "-"
            tune = f"tune {c.tune.value:.2f} ({c.tune.low:.2f} to {c.tune.high:.2f})"
            yield f"best setting of {c.source} at {c.target}", f"{'yes' if c.carries else 'no'}, {tune}, {size}"


def _steps(steps: int | None, largest: int) -> str:
    return "undecided" if steps is None else f"{steps} (of {largest})"


def _share(value: float, low: float, high: float) -> str:
    ends = [f"{100 * end:.1f}" if end == end else "-" for end in (low, high)]
    return f"{100 * value:.1f} ({' to '.join(ends)}) %"


PARTS: Mapping[str, Callable[[Study], None]] = {"pictures": pictures, "mlflow": mlflow, "tuning": tuning}


def main() -> None:
    """Do what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="default: all")
    parts = parser.parse_args().parts or list(PARTS)
    study = open_study(Path.cwd())
    ASSETS.mkdir(parents=True, exist_ok=True)
    for part in parts:
        PARTS[part](study)


if __name__ == "__main__":
    main()
