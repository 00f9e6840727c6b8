"""A checkpoint of the ladder opens in TransformerLens, which finds the same logits as the engine."""

from pathlib import Path

import pytest
import torch

from ontogeny.models.ladder import write_checkpoint
from ontogeny.models.neox import initial_parameters, neox_config
from ontogeny.models.subject import load_subject
from ontogeny.params import CorpusParams, ScaleParams
from ontogeny.tasks.corpus import build_corpus, load_tokenizer

PROMPT = "When John and Mary went to the store, John gave a drink to"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ladder")
    build_corpus(CorpusParams(train_tokens=1000, held_out_tokens=1000), folder / "corpus")
    vocabulary = len(load_tokenizer(folder / "corpus").ids())
    config = neox_config(ScaleParams(layers=2, heads=2, d_model=32), 128, vocabulary)
    parameters = {name: 3 * value for name, value in initial_parameters(config, seed=0).items()}
    write_checkpoint(folder / "member", 0, parameters, config, folder / "corpus" / "tokenizer")
    return folder / "member" / "step0"


def test_transformer_lens_sees_the_same_model(checkpoint: Path) -> None:
    """Float32 through two layers; TransformerLens and the engine order their sums differently."""
    from transformer_lens.model_bridge import TransformerBridge

    bridge = TransformerBridge.boot_transformers(str(checkpoint), device="cpu")
    subject = load_subject(checkpoint)
    assert subject.tokenizer is not None
    ids = torch.tensor([subject.tokenizer.encode(PROMPT)])
    with torch.no_grad():
        logits = bridge(ids)
    ours = subject.logits(ids, torch.tensor([ids.shape[1]]))
    assert ours.std() > 0.1
    torch.testing.assert_close(ours, logits[:, -1], atol=1e-4, rtol=0)
