"""Stage `figures`: every picture of the study, and the rows that each shows."""

from __future__ import annotations

import logging

from ontogeny.records.files import replacing
from ontogeny.stages.study import Study
from ontogeny.stages.trajectory import read_records, read_trajectory

log = logging.getLogger(__name__)


def run(study: Study, item: str | None) -> None:
    """Write data/figures: NAME.png, NAME.svg (as the params say) and NAME.csv."""
    from ontogeny.figures import pictures

    assert item is None
    settings = study.params.figures
    count = 0
    for picture in pictures(read_records(study), read_trajectory(study.trajectories)):
        path = study.figures / f"{picture.name}.csv"
        with replacing(path) as temporary:
            picture.rows.to_csv(temporary, index=False)
        for kind, content in picture.files(settings.formats, settings.dpi).items():
            with replacing(path.with_suffix(f".{kind}")) as temporary:
                temporary.write_bytes(content)
        count += 1
    log.info("%d pictures in %s.", count, study.figures)
