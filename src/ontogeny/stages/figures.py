"""Stage `figures`: every picture of the study, and the rows that each shows.

Workers draw. A picture is kept in the cache under a digest of its rows, its look and the code that draws it: what has
not changed is not drawn again.
"""

from __future__ import annotations

import hashlib
import logging
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from ontogeny.core.errors import OntogenyError
from ontogeny.execution.fingerprints import fingerprint, sources
from ontogeny.execution.jobs import Job, Report
from ontogeny.execution.pool import run_jobs
from ontogeny.execution.progress import progress_of
from ontogeny.records.files import replacing
from ontogeny.stages.study import Study
from ontogeny.stages.trajectory import read_records, read_trajectory

if TYPE_CHECKING:
    import pandas as pd

    from ontogeny.figures import Picture
    from ontogeny.params import FiguresParams

log = logging.getLogger(__name__)


def run(study: Study, item: str | None) -> None:
    """Write data/figures: NAME.png, NAME.svg (as the params say) and NAME.csv."""
    from ontogeny.figures import open_bundle, pictures

    assert item is None
    settings = study.params.figures
    kept: dict[str, Path] = {}
    jobs = []
    for picture in pictures(read_records(study), read_trajectory(study.trajectories)):
        table = _table(picture)
        with replacing(study.figures / f"{picture.name}.csv") as temporary:
            temporary.write_bytes(table)
        place = _place(study.places.cache / "figures", picture, table, settings)
        kept[picture.name] = place
        if not place.exists():
            jobs.append(Job(f"figure {picture.name}", draw, (place, picture.kind, picture.rows, settings)))
    if jobs:
        with progress_of("Figures", jobs) as progress:
            outcomes = run_jobs(jobs, study.params.execution.n_jobs, progress)
        lost = [outcome for outcome in outcomes if outcome.error is not None]
        if lost:
            raise OntogenyError(f"{lost[0].job.name} could not be drawn: {lost[0].error} ({len(lost)} of {len(jobs)}).")
    for name, place in kept.items():
        for kind, content in open_bundle(place.read_bytes()).items():
            with replacing(study.figures / f"{name}.{kind}") as temporary:
                temporary.write_bytes(content)
    log.info("%d pictures in %s, %d of them drawn anew.", len(kept), study.figures, len(jobs))


def draw(place: Path, kind: str, rows: pd.DataFrame, settings: FiguresParams, report: Report) -> None:
    """Draw one picture in all formats (in a worker) and keep it at `place`."""
    from ontogeny.figures import FIGURES, Picture, zipped

    picture = Picture(kind, FIGURES[kind].caption, rows, FIGURES[kind].draw)
    content = picture.files(settings.formats, settings.dpi)
    with replacing(place, flush=False) as temporary:
        temporary.write_bytes(zipped(content))
    report(1.0, kind)


def _table(picture: Picture) -> bytes:
    text: str = picture.rows.to_csv(index=False)
    return text.encode()


def _place(folder: Path, picture: Picture, table: bytes, settings: FiguresParams) -> Path:
    rows, look = hashlib.sha256(table).hexdigest(), settings.model_dump(mode="json")
    code = [sources("figures"), version("matplotlib")]
    key = fingerprint(kind="figure", figure=picture.kind, rows=rows, look=look, code=code)
    return folder / key[:2] / f"{key}.zip"
