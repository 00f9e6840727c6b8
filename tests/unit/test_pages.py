"""The pages for people: links lead somewhere, every column is explained, the kept study's verdicts are its tables'."""

import re
from dataclasses import fields
from pathlib import Path

import pandas as pd
import pytest

from ontogeny.params import TrajectoryParams
from ontogeny.series import Trajectory, follow
from support.synthetic_study import STEPS, study
from support.synthetic_transfers import transfers

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
LINK = re.compile(r"\]\(([^)\s]+)\)")


def headings(page: Path) -> set[str]:
    """Anchors of a page, as mkdocs names them."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", title.lower()).strip()) for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    lost = []
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        file, _, anchor = link.partition("#")
        if re.match(r"[a-z]+:", link):
            continue
        target = (page.parent / file).resolve() if file else page
        if not target.exists() or (anchor and anchor not in headings(target)):
            lost.append(link)
    assert not lost, f"{page.relative_to(ROOT)} links to what is not there"


def test_there_are_pages_and_links() -> None:
    assert len(PAGES) > 15
    assert sum(len(LINK.findall(page.read_text(encoding="utf-8"))) for page in PAGES) > 50
    assert "onset" in LINK.findall("[o](onset)")[0]


def explained_columns() -> dict[tuple[str, ...], set[str]]:
    """Files of a section of docs/tables.md -> columns that its table names."""
    sections = (ROOT / "docs" / "tables.md").read_text(encoding="utf-8").split("\n## ")[1:]
    found = {}
    for title, *lines in (section.splitlines() for section in sections):
        cells = [line.split(" | ")[0] for line in lines if line.startswith("| `")]
        found[tuple(re.findall(r"`(\w+)`", title))] = set(re.findall(r"`(\w+)`", " ".join(cells)))
    return found


def test_every_column_of_every_table_is_explained_and_no_other() -> None:
    records = study(("nano", "small"), STEPS[-6:], ("ioi", "greater_than"), seeds=2)
    trajectory = follow(records, TrajectoryParams(resamples=50, null_circuits=3), transfers=transfers(records))
    explained = {files: named for files, named in explained_columns().items() if files}
    assert sorted(file for files in explained for file in files) == sorted(field.name for field in fields(Trajectory))
    for files, named in explained.items():
        columns = {str(column) for file in files for column in getattr(trajectory, file).columns}
        assert named == columns, f"section {files} of docs/tables.md"


def test_the_page_of_the_full_study_says_what_its_tables_say() -> None:
    """Verdicts of the page and of the kept report: a study that is run again changes all of them, or none."""
    folder = ROOT / "docs" / "study"
    claims = pd.read_csv(folder / "full" / "tables" / "claims.csv")
    whole = claims[claims["about"] == "all"]
    assert list(whole["claim"]) == [f"C{n}" for n in range(1, 13)]
    page, report = ((folder / name).read_text(encoding="utf-8") for name in ("index.md", "full/report.md"))
    for row in whole.itertuples():
        assert f"| {row.claim} | {row.sentence} | {row.verdict} | " in report
        assert re.search(rf"^\| {row.claim} [^|]* \| {row.verdict} \| ", page, re.MULTILINE), row.claim
