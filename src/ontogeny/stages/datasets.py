"""Stage `datasets`, an item a task: the task's frozen prompt pairs."""

from __future__ import annotations

import logging

from ontogeny.records.datasets import write_dataset
from ontogeny.stages.study import Study

log = logging.getLogger(__name__)


def run(study: Study, item: str | None) -> None:
    """Write data/tasks/TASK."""
    from ontogeny.tasks import get_task
    from ontogeny.tasks.corpus import load_tokenizer

    assert item is not None
    settings = study.params.datasets
    dataset = get_task(item).generate(
        load_tokenizer(study.corpus),
        size=settings.sizes.get(item),
        seed=settings.seed,
        corruption=settings.corruptions.get(item),
    )
    write_dataset(study.dataset(item), dataset)
    sizes = ", ".join(f"{len(pairs)} {split}" for split, pairs in dataset.splits.items())
    log.info("%s: %s; digest %s.", item, sizes, dataset.digest)
