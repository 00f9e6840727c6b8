"""Stage `corpus`: the ladder's text, the held-out text and the tokenizer."""

from __future__ import annotations

import logging

from ontogeny.stages.study import Study

log = logging.getLogger(__name__)


def run(study: Study, item: str | None) -> None:
    """Write data/corpus."""
    from ontogeny.tasks.corpus import build_corpus

    assert item is None
    counts = build_corpus(study.params.corpus, study.corpus)
    log.info("Corpus: %s.", ", ".join(f"{count:,} {what.replace('_', ' ')}" for what, count in counts.items()))
