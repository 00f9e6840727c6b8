"""A small corpus, built once."""

from pathlib import Path

import pytest

from ontogeny.params import CorpusParams
from ontogeny.tasks.corpus import build_corpus


@pytest.fixture(scope="session")
def corpus_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a corpus of 400,000 tokens; read-only."""
    directory = tmp_path_factory.mktemp("corpus")
    build_corpus(CorpusParams(train_tokens=400_000, held_out_tokens=20_000), directory)
    return directory
