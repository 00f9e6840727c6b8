"""Stage `corpus`: the text and the tokenizer.

Of a suite that is trained here, the text that it is trained on, held-out text, and the tokenizer made from them. Of any
other, the tokenizer of its models and the text that the params name.
"""

from __future__ import annotations

import logging
import shutil

from ontogeny.core.errors import OntogenyError
from ontogeny.params import TextParams
from ontogeny.stages.study import Study

log = logging.getLogger(__name__)


def run(study: Study, item: str | None) -> None:
    """Write data/corpus."""
    from ontogeny.tasks.corpus import build_corpus

    assert item is None
    settings = study.params.corpus
    if isinstance(settings, TextParams):
        _copy(study, settings)
        return
    counts = build_corpus(settings, study.corpus)
    log.info("Corpus: %s.", ", ".join(f"{count:,} {what.replace('_', ' ')}" for what, count in counts.items()))


def check_text(study: Study, settings: TextParams) -> None:
    """Refuse a text that is not there.

    Raises:
        OntogenyError: there is no such file, or it is empty.
    """
    path = study.places.project / settings.text if settings.text is not None else None
    if path is not None and not (path.is_file() and path.read_text(encoding="utf-8").strip()):
        raise OntogenyError(
            f"corpus.text: {path} does not exist or is empty. Name a text file, a document a line, or null: copy "
            "suppression is then not measured."
        )


def _copy(study: Study, settings: TextParams) -> None:
    """The tokenizer and the text that the params name; without one, an empty text."""
    from ontogeny.models.hub_source import given_tokenizer

    check_text(study, settings)
    (study.corpus / "tokenizer").mkdir(parents=True, exist_ok=True)
    tokenizer = given_tokenizer(settings.tokenizer, study.places.project)
    shutil.copyfile(tokenizer, study.corpus / "tokenizer" / "tokenizer.json")
    held_out = study.corpus / "held_out.txt"
    if settings.text is None:
        held_out.write_text("", encoding="utf-8")
    else:
        shutil.copyfile(study.places.project / settings.text, held_out)
    log.info("Tokenizer of %s; text: %s.", settings.tokenizer, settings.text or "none")
