"""Checkpoints in folders, as a fine-tuning run leaves them."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from ontogeny.core.errors import BadCheckpoint, OntogenyError
from ontogeny.models.checkpoints import checkpoint_source
from ontogeny.models.folder_source import FolderSource, _config
from ontogeny.models.hub import config_digest
from ontogeny.models.neox import NeoxConfig
from ontogeny.models.subject import load_subject
from ontogeny.params import load_params
from ontogeny.tasks.tokenizer import train_tokenizer
from support.hub_models import write_model

ROOT = Path(__file__).parents[3]
SHAPE = NeoxConfig(1, 2, 16, 60, 64)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A base model, and two checkpoints beside what else the Trainer leaves."""
    train_tokenizer(["a b c"], ["d"], tmp_path / "tokenizer")
    tokenizer = tmp_path / "tokenizer" / "tokenizer.json"
    write_model(tmp_path / "base", SHAPE, 0, tokenizer)
    for step in (20, 100):
        write_model(tmp_path / "run" / f"checkpoint-{step}", SHAPE, step, tokenizer)
        (tmp_path / "run" / f"checkpoint-{step}" / "optimizer.pt").write_bytes(b"x")
    (tmp_path / "run" / "runs").mkdir()
    (tmp_path / "run" / "README.md").write_text("Fine-tuned.")
    return tmp_path


def source(project: Path, **changes: Any) -> FolderSource:
    data = yaml.safe_load((ROOT / "params" / "pythia-160m-ioi.yaml").read_text())
    data["suite"] = {"name": "tuned", "source": "folder", "members": ["tuned-s0"]}
    data["corpus"]["tokenizer"] = changes.pop("tokenizer", "tokenizer")
    data["checkpoints"] = {
        "folders": {"tuned-s0": "run"},
        "base": {"tuned-s0": "base"},
        "tokens_per_step": 512,
    } | changes
    (project / "params.yaml").write_text(yaml.safe_dump(data))
    found = checkpoint_source(load_params(project / "params.yaml"), project, project)
    assert isinstance(found, FolderSource)
    return found


def refused(found: FolderSource) -> str:
    with pytest.raises(OntogenyError) as caught:
        found.check()
    return str(caught.value)


def test_the_base_is_step_0_and_the_rest_follow_by_their_numbers(project: Path) -> None:
    found = source(project)
    found.check()
    refs = found.references("tuned-s0", project / "data")
    assert [(ref.step, ref.tokens, ref.path) for ref in refs] == [
        (0, 0, "base"), (20, 20 * 512, "run/checkpoint-20"), (100, 100 * 512, "run/checkpoint-100"),
    ]  # fmt: skip
    assert len({ref.weights_digest for ref in refs}) == 3
    with found.opened(refs[1]) as folder:
        assert folder == project / "run" / "checkpoint-20"
        assert load_subject(folder).parameters > 0
    assert [f.step for f in found.forecast("tuned-s0")] == [0, 20, 100]
    assert found.config("tuned-s0")["hidden_size"] == 16


def test_a_changed_checkpoint_is_refused(project: Path) -> None:
    found = source(project)
    ref = found.references("tuned-s0", project / "data")[1]
    write_model(project / "run" / "checkpoint-20", SHAPE, 21, None)
    with pytest.raises(BadCheckpoint, match="was changed"), found.opened(ref):
        pass


def test_weights_of_pytorch_load_too(project: Path) -> None:
    from safetensors.torch import load_file

    folder = project / "run" / "checkpoint-20"
    tensors = load_file(folder / "model.safetensors")
    before = load_subject(folder).weights.embed
    (folder / "model.safetensors").unlink()
    torch.save(tensors, folder / "pytorch_model.bin")
    found = source(project)
    found.check()
    with found.opened(found.references("tuned-s0", project / "data")[1]) as place:
        assert torch.equal(load_subject(place).weights.embed, before)


def test_a_checkpoint_without_a_tokenizer_takes_the_study_s(project: Path) -> None:
    (project / "run" / "checkpoint-20" / "tokenizer.json").unlink()
    source(project).check()


def test_what_cannot_be_followed_is_refused_before_any_work(project: Path) -> None:
    assert "tuned-s0 has no folder" in refused(source(project, folders={"tuned-s0": "nowhere"}))
    assert "it holds: README.md, checkpoint-100" in refused(source(project, names="epoch{N}"))
    assert "tokenizer" in refused(source(project, tokenizer="run"))
    assert "no folder" in refused(source(project, base={"tuned-s0": "nothing"}))
    assert "step 50; nearest: 0, 20, 100" in refused(source(project, coverage={"behaviour": [50]}))
    train_tokenizer(["a b c"], ["e"], project / "other")
    assert "is another than corpus.tokenizer" in refused(source(project, tokenizer="other"))
    shutil.copytree(project / "run" / "checkpoint-20", project / "run" / "step20")
    assert "step 20 is both" in refused(source(project))
    shutil.rmtree(project / "run" / "step20")
    (project / "run" / "checkpoint-100" / "adapter_config.json").write_text("{}")
    assert "holds an adapter" in refused(source(project))
    (project / "run" / "checkpoint-100" / "adapter_config.json").unlink()
    (project / "run" / "checkpoint-100" / "config.json").unlink()
    assert "no config.json" in refused(source(project))


def test_a_config_that_is_only_written_otherwise_is_the_same(project: Path) -> None:
    """Pythia's of 2022, and what transformers makes of it when the model is saved again."""
    from transformers import AutoModelForCausalLM

    old = _config(project / "base")
    AutoModelForCausalLM.from_pretrained(project / "base").save_pretrained(project / "again")
    new = _config(project / "again")
    assert old != new
    assert config_digest(old) == config_digest(new)
    assert config_digest(old | {"rotary_pct": 0.5}) != config_digest(old)
    assert config_digest(old | {"use_parallel_residual": False}) != config_digest(old)
