"""Checkpoints on disk: their digests, their order, and where they come from."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM

from ontogeny.core.errors import BadCheckpoint, OntogenyError
from ontogeny.models.checkpoints import (
    FoundSource,
    TrainedSource,
    checkpoint_source,
    register_source,
    step_folders,
    weights_digest,
)
from ontogeny.params import load_params

ROOT = Path(__file__).parents[3]


def checkpoint(folder: Path, **tensors: torch.Tensor) -> Path:
    folder.mkdir(parents=True)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


def test_the_digest_is_of_names_types_shapes_and_numbers(tmp_path: Path) -> None:
    a, b = torch.arange(6.0), torch.ones(2, dtype=torch.bfloat16)
    digest = weights_digest(checkpoint(tmp_path / "one", a=a, b=b))
    others = {
        weights_digest(checkpoint(tmp_path / "number", a=a + 1, b=b)),
        weights_digest(checkpoint(tmp_path / "shape", a=a.view(2, 3), b=b)),
        weights_digest(checkpoint(tmp_path / "type", a=a.to(torch.float64), b=b)),
        weights_digest(checkpoint(tmp_path / "name", a=a, c=b)),
    }
    assert len(digest) == 32
    assert len(others) == 4
    assert digest not in others


def test_the_digest_does_not_depend_on_files_or_metadata(tmp_path: Path) -> None:
    a, b = torch.arange(6.0), torch.ones(2, dtype=torch.bfloat16)
    sharded = checkpoint(tmp_path / "sharded", b=b)
    save_file({"a": a}, sharded / "model-2.safetensors")
    assert weights_digest(sharded) == weights_digest(checkpoint(tmp_path / "one", a=a, b=b))


@pytest.mark.parametrize("size", [0, 4, 60, -1])
def test_a_file_that_is_cut_short_is_named(tmp_path: Path, size: int) -> None:
    folder = checkpoint(tmp_path / "one", a=torch.arange(6.0))
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:size])
    with pytest.raises(BadCheckpoint, match=r"one/model\.safetensors is .*cut short"):
        weights_digest(folder)


def test_a_folder_without_weights_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(BadCheckpoint, match="holds no"):
        weights_digest(tmp_path)


def test_steps_are_in_order_of_training(tmp_path: Path) -> None:
    for name in ("step10", "step2", "step100", "state", "step1.partial", ".partial-3"):
        (tmp_path / name).mkdir()
    assert list(step_folders(tmp_path)) == [2, 10, 100]


def test_the_ladder_is_a_source_whose_facts_are_what_the_weights_depend_on(tmp_path: Path) -> None:
    corpus = tmp_path / "data" / "corpus"
    (corpus / "tokenizer").mkdir(parents=True)
    for name in ("tokens.safetensors", "tokenizer/tokenizer.json"):
        (corpus / name).write_text("1")
    params = load_params(ROOT / "params" / "tiny.yaml")

    def source(device: str = "cpu", **changes: object) -> TrainedSource:
        settings = params.checkpoints.model_copy(update=changes)
        execution = params.execution.model_copy(update={"device": device})
        changed = params.model_copy(update={"checkpoints": settings, "execution": execution})
        found = checkpoint_source(changed, tmp_path, tmp_path)
        assert isinstance(found, TrainedSource)
        assert not isinstance(found, FoundSource)
        return found

    facts = source().facts("micro-s0")
    assert source(save_every=7).facts("micro-s0") == facts
    assert source(learning_rate=0.1).facts("micro-s0") != facts
    assert source().facts("micro-s1") != facts
    assert source().facts("nano-s0") != facts
    assert source("cuda:1").facts("micro-s0") == source("cuda").facts("micro-s0") != facts
    (corpus / "tokens.safetensors").write_text("2")
    assert source().facts("micro-s0") != facts
    assert source().cost("micro-s0") > source().cost("nano-s0")
    assert source().tokens(3) == 3 * params.checkpoints.batch * params.checkpoints.context


def test_the_ladder_says_what_it_will_make(tmp_path: Path) -> None:
    source = checkpoint_source(load_params(ROOT / "params" / "tiny.yaml"), tmp_path, tmp_path)
    forecast = source.forecast("micro-s0")
    assert [f.step for f in forecast] == [0, 4, 8, 16, 24]
    assert [f.tokens for f in forecast] == [512 * f.step for f in forecast]
    assert {f.missing for f in forecast} == {0}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**source.config("micro-s0")))
    assert {f.bytes for f in forecast} == {4 * sum(p.numel() for p in model.parameters())}


def test_sources_have_one_name_each(tmp_path: Path) -> None:
    params = load_params(ROOT / "params" / "tiny.yaml")
    attic = params.model_copy(update={"suite": params.suite.model_copy(update={"source": "attic"})})
    with pytest.raises(OntogenyError, match="choose from folder, hub, ladder"):
        checkpoint_source(attic, tmp_path, tmp_path)
    with pytest.raises(ValueError, match="registered already"):
        register_source("ladder", checkpoint_source)  # type: ignore[arg-type]
