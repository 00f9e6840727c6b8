"""Training of a ladder member: the model is Hugging Face's, the order is fixed, a killed run ends the same."""

import math
import os
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM, AutoTokenizer

from ontogeny.models import ladder, neox, optimiser
from ontogeny.params import CheckpointsParams, CorpusParams, ScaleParams
from ontogeny.tasks.corpus import DECIDED, UNDECIDED, build_corpus, load_stream

SCALE = ScaleParams(layers=2, heads=2, d_model=32)
SETTINGS = CheckpointsParams(
    scales={}, steps=12, batch=2, first_steps=(0, 1, 8), even_from=1.0, even_count=0, save_every=3
)


@pytest.fixture(scope="module")
def corpus_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("corpus")
    build_corpus(CorpusParams(train_tokens=20_000, held_out_tokens=1000), directory)
    return directory


def train(corpus: Path, home: Path, settings: CheckpointsParams = SETTINGS, stop_at: int | None = None) -> list[float]:
    """Losses of the steps that ran; stops with an exception after step `stop_at`."""
    losses = []

    def on_step(step: int, loss: float) -> None:
        losses.append(loss)
        if step == stop_at:
            raise KeyboardInterrupt

    ladder.train_member(SCALE, settings, corpus, home / "out", home / "state", 3, "cpu", on_step)
    return losses


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def trained(corpus_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("trained")
    train(corpus_dir, home)
    return home


# --- Checkpoints ---------------------------------------------------------------------------------------------------


def test_checkpoints_are_hugging_face_folders(trained: Path) -> None:
    model, report = AutoModelForCausalLM.from_pretrained(trained / "out/step12", output_loading_info=True)
    assert not any(report.values())
    config = model.config
    assert (config.model_type, config.use_parallel_residual, config.tie_word_embeddings) == ("gpt_neox", True, False)
    assert config.rope_parameters["partial_rotary_factor"] == SETTINGS.rotary
    tokenizer = AutoTokenizer.from_pretrained(trained / "out/step12")
    text = "So Paul is such a good cook, isn't he? In 1732, John."
    ids = tokenizer(text).input_ids
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode([ids[-4]]) == "32"


def test_our_forward_pass_is_hugging_faces(trained: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(trained / "out/step12").double()
    config = neox.NeoxConfig(2, 2, 32, model.config.vocab_size, 128, SETTINGS.rotary)
    named = {k.replace("lm_head", "embed_out"): v for k, v in model.state_dict().items()}
    ids = torch.randint(0, config.vocabulary, (3, 40), generator=torch.Generator().manual_seed(0))
    mask = torch.ones(40, 40, dtype=torch.bool).tril().expand(3, 1, 40, 40)
    ours = neox.logits_at(named, config, ids, mask, torch.ones_like(ids, dtype=torch.bool))
    theirs = model(ids).logits.reshape(ours.shape).detach()
    assert theirs.std() > 0.1
    # Hugging Face computes the rotary angles in float32 whatever the model's type.
    torch.testing.assert_close(ours.to(theirs), theirs, atol=1e-5, rtol=1e-5)


def test_checkpoints_differ_and_the_last_step_is_there(trained: Path) -> None:
    steps = sorted(int(p.name[4:]) for p in (trained / "out").iterdir())
    assert steps == ladder.checkpoint_steps(SETTINGS)
    assert steps[-1] == SETTINGS.steps
    weights = {(trained / f"out/step{step}/model.safetensors").read_bytes() for step in steps}
    assert len(weights) == len(steps)


# --- Determinism ---------------------------------------------------------------------------------------------------


def test_same_arguments_same_bytes_another_seed_other_weights(corpus_dir: Path, trained: Path, tmp_path: Path) -> None:
    train(corpus_dir, tmp_path)
    assert contents(tmp_path / "out") == contents(trained / "out")
    other = neox.initial_parameters(neox.NeoxConfig(2, 2, 32, 50, 128), 1)
    this = neox.initial_parameters(neox.NeoxConfig(2, 2, 32, 50, 128), 0)
    assert not torch.equal(other["embed_out.weight"], this["embed_out.weight"])


@pytest.mark.parametrize("stop_at", [2, 3, 5, 9])
def test_an_interrupted_run_ends_with_the_same_bytes(
    corpus_dir: Path, trained: Path, tmp_path: Path, stop_at: int
) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(corpus_dir, tmp_path, stop_at=stop_at)
    (tmp_path / "out" / ".partial-step99").mkdir(parents=True)
    resumed = train(corpus_dir, tmp_path)
    assert len(resumed) < SETTINGS.steps or stop_at < SETTINGS.save_every
    assert contents(tmp_path / "out") == contents(trained / "out")
    assert not list((tmp_path / "out").glob(".partial-*"))


def test_a_finished_run_trains_nothing_again(corpus_dir: Path, trained: Path) -> None:
    before = contents(trained / "out")
    assert train(corpus_dir, trained) == []
    assert contents(trained / "out") == before


def test_a_killed_process_goes_on_and_ends_with_the_same_bytes(corpus_dir: Path, tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"steps": 150, "save_every": 7})
    train(corpus_dir, tmp_path / "undisturbed", settings)
    code = (
        "import sys; from pathlib import Path; from ontogeny.models import ladder; from ontogeny.params import *\n"
        "scale = ScaleParams.model_validate_json(sys.argv[1])\n"
        "settings = CheckpointsParams.model_validate_json(sys.argv[2])\n"
        "corpus, out, state = map(Path, sys.argv[3:])\n"
        "ladder.train_member(scale, settings, corpus, out, state, 3, 'cpu', lambda step, loss: None)"
    )
    home = tmp_path / "killed"
    arguments = [
        SCALE.model_dump_json(),
        settings.model_dump_json(),
        str(corpus_dir),
        str(home / "out"),
        str(home / "state"),
    ]
    process = subprocess.Popen([sys.executable, "-c", code, *arguments])
    while not (home / "state" / "state.safetensors").exists() and process.poll() is None:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (home / "out" / f"step{settings.steps}").exists()
    assert len(train(corpus_dir, home, settings)) < settings.steps
    assert contents(home / "out") == contents(tmp_path / "undisturbed" / "out")


# --- Schedule ------------------------------------------------------------------------------------------------------


def test_schedule_of_checkpoints() -> None:
    steps = ladder.checkpoint_steps(CheckpointsParams(scales={}, steps=1024, even_from=1.0, even_count=0))
    assert steps[:4] == [0, 1, 8, 64]
    assert [s for s in steps if s > 64] == [round(64 * 2 ** (i / 4)) for i in range(1, 17)]
    later = ladder.checkpoint_steps(CheckpointsParams(scales={}, steps=4000, even_from=0.25, even_count=10))
    assert later == sorted(set(later))
    assert [s for s in later if s > 1000] == list(range(1300, 4001, 300))


def test_schedule_of_the_learning_rate() -> None:
    settings = CheckpointsParams(scales={}, steps=1000, warmup=0.1, decay=0.5, final_rate=0.1)
    heights = [optimiser.schedule(step, settings) for step in range(1000)]
    assert heights[0] == pytest.approx(0.01)
    assert heights[100:500] == [1.0] * 400
    assert heights[-1] == pytest.approx(0.1, abs=0.01)
    assert max(heights) == 1.0


# --- Data ----------------------------------------------------------------------------------------------------------


def test_packing_keeps_every_document_whole_and_once(corpus_dir: Path) -> None:
    stream = load_stream(corpus_dir)
    rows = ladder.pack(stream, 128)
    found = []
    for ids, documents in zip(rows.ids, rows.documents):
        found += [tuple(ids[documents == n].tolist()) for n in range(int(documents.max()) + 1)]
    starts = stream.starts.tolist()
    assert sorted(found) == sorted(tuple(stream.ids[a:b].tolist()) for a, b in pairwise(starts))
    assert (rows.documents >= 0).float().mean() > 0.95
    kept = rows.documents >= 0
    assert torch.equal(rows.roles[kept].long().bincount(), stream.roles.long().bincount())


def test_an_epoch_reads_every_row_once_and_epochs_differ() -> None:
    epochs = [torch.cat([ladder.row_order(20, 4, step, 7) for step in range(5 * e, 5 * e + 5)]) for e in range(2)]
    assert all(sorted(epoch.tolist()) == list(range(20)) for epoch in epochs)
    assert not torch.equal(*epochs)
    assert not torch.equal(ladder.row_order(20, 4, 0, 7), ladder.row_order(20, 4, 0, 8))


def test_documents_of_a_row_do_not_see_each_other(corpus_dir: Path) -> None:
    rows = ladder.pack(load_stream(corpus_dir), 128)
    row = int((rows.documents.amax(dim=1) >= 2).nonzero()[0, 0])
    batch = rows.take(torch.tensor([row]), SETTINGS, "cpu")
    config = neox.NeoxConfig(2, 2, 32, 900, 128)
    parameters = neox.initial_parameters(config, 0)
    joint = neox.logits_at(parameters, config, batch.inputs, batch.mask, torch.ones_like(batch.inputs) > 0)
    inside = rows.documents[row] == 1
    alone = batch.inputs[:, inside]
    causal = torch.ones(alone.shape[1], alone.shape[1], dtype=torch.bool).tril()[None, None]
    single = neox.logits_at(parameters, config, alone, causal, torch.ones_like(alone) > 0)
    torch.testing.assert_close(joint[inside], single, atol=1e-5, rtol=1e-5)
    open_mask = torch.ones(128, 128, dtype=torch.bool).tril()[None, None]
    seeing = neox.logits_at(parameters, config, batch.inputs, open_mask, torch.ones_like(batch.inputs) > 0)
    assert (seeing[inside] - single).abs().max() > 1e-3


def test_weights_follow_the_roles_and_stop_at_documents(corpus_dir: Path) -> None:
    rows = ladder.pack(load_stream(corpus_dir), 128)
    settings = SETTINGS.model_copy(update={"undecided_weight": 0.5, "decided_weight": 7.0})
    batch = rows.take(torch.arange(8), settings, "cpu")
    assert batch.weights.sum() == pytest.approx(1.0)
    scale = batch.weights.max() / 7
    roles, documents = rows.roles[:8, 1:], rows.documents[:8]
    ends = documents[:, 1:] != documents[:, :-1]
    counted = batch.weights[:, :-1]
    assert bool((counted[ends] == 0).all())
    torch.testing.assert_close(counted[(roles == DECIDED) & ~ends].unique(), 7 * scale[None])
    chance = (roles == UNDECIDED) & ~ends & (documents[:, 1:] >= 0)
    torch.testing.assert_close(counted[chance].unique(), 0.5 * scale[None])


# --- Optimisation --------------------------------------------------------------------------------------------------


def test_loss_and_gradient_are_those_of_torch() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(6, 11, generator=generator, dtype=torch.float64).requires_grad_()
    targets = torch.randint(0, 11, (6,), generator=generator)
    weights = torch.rand(6, generator=generator, dtype=torch.float64)
    ours = ladder._WeightedCrossEntropy.apply(scores, targets, weights)
    (gradient,) = torch.autograd.grad(3 * ours, scores)
    theirs = (weights * F.cross_entropy(scores, targets, reduction="none")).sum()
    (expected,) = torch.autograd.grad(3 * theirs, scores)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize("shape", [(3, 16, 16), (2, 64, 16), (2, 16, 64)])
def test_orthogonal_flattens_the_singular_values(shape: tuple[int, ...]) -> None:
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    before, after = torch.linalg.svdvals(x), torch.linalg.svdvals(optimiser.orthogonal(x))
    assert before.max() / before.min() > 2
    assert 0.5 < after.min() <= after.max() < 1.3
    # The singular vectors stay: u^T (made x) v is positive and nearly diagonal.
    u, _, v = torch.linalg.svd(x, full_matrices=False)
    turned = u.mT @ optimiser.orthogonal(x) @ v.mT
    torch.testing.assert_close(turned, torch.diag_embed(turned.diagonal(dim1=-2, dim2=-1)), atol=1e-4, rtol=0)


def test_adam_is_torchs() -> None:
    settings = SETTINGS.model_copy(
        update={"optimiser": "adamw", "warmup": 1e-9, "decay": 1e-9, "weight_decay": 0.1, "width_exponent": 0.0}
    )
    config = neox.NeoxConfig(1, 2, 32, 20, 128)
    ours = {k: v.requires_grad_() for k, v in neox.initial_parameters(config, 0).items()}
    theirs = {k: v.requires_grad_() for k, v in neox.initial_parameters(config, 0).items()}
    matrices = [v for v in theirs.values() if v.ndim == 2]
    vectors = [v for v in theirs.values() if v.ndim == 1]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    reference = torch.optim.AdamW(groups, lr=settings.learning_rate, betas=optimiser.BETAS)
    ours_step = optimiser.Optimiser(ours, SCALE, settings)
    for step in range(5):
        for name in ours:
            gradient = torch.randn(ours[name].shape, generator=torch.Generator().manual_seed(step))
            ours[name].grad, theirs[name].grad = gradient.clone(), gradient.clone()
        ours_step.step(step)
        reference.step()
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], atol=1e-6, rtol=1e-5)
    assert not torch.equal(ours["embed_out.weight"], neox.initial_parameters(config, 0)["embed_out.weight"])


def test_muon_moves_queries_keys_and_values_separately() -> None:
    config = neox.NeoxConfig(1, 2, 32, 20, 128)
    parameters = {k: v.requires_grad_() for k, v in neox.initial_parameters(config, 0).items()}
    name = "gpt_neox.layers.0.attention.query_key_value.weight"
    before = parameters[name].detach().clone()
    settings = SETTINGS.model_copy(update={"warmup": 1e-9, "decay": 1e-9})
    for parameter in parameters.values():
        parameter.grad = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0))
    optimiser.Optimiser(parameters, SCALE, settings).step(0)
    moved = (parameters[name].detach() - before).view(2, 3, 16, 32).transpose(0, 1).reshape(3, 32, 32)
    values = torch.linalg.svdvals(moved / settings.muon_learning_rate)
    assert 0.5 < values.median() < 1.3


def test_learning_rate_falls_with_width() -> None:
    rates = []
    for width in (24, 96):
        scale = ScaleParams(layers=1, heads=1, d_model=width)
        parameters = {"gpt_neox.final_layer_norm.bias": torch.zeros(width, requires_grad=True)}
        parameters["gpt_neox.final_layer_norm.bias"].grad = torch.ones(width)
        settings = SETTINGS.model_copy(update={"warmup": 1e-9, "decay": 1e-9, "width_exponent": -0.5})
        optimiser.Optimiser(parameters, scale, settings).step(0)
        rates.append(-parameters["gpt_neox.final_layer_norm.bias"][0].item())
    assert rates[0] == pytest.approx(2 * rates[1], rel=1e-4)


def test_training_learns(corpus_dir: Path, tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"steps": 60, "batch": 4})
    losses = train(corpus_dir, tmp_path, settings)
    assert losses[0] == pytest.approx(math.log(800), abs=1.0)
    assert sum(losses[-5:]) / 5 < losses[0] - 1.5
