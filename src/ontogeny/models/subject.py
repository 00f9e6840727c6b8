"""A model under study: its weights in the engine's form, its tokenizer, and the checks that make them trustworthy.

On load two things are checked on a few tokens: that the residual stream at every block is the sum of what the writers
before it put there (plus biases that belong to no writer), and that the logits are those of the Hugging Face forward
pass. A model for which they do not hold is refused, with the place and the size of the difference.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ontogeny.core.errors import BadCheckpoint, ImpossibleRequest, NotFinite, UnsupportedModel
from ontogeny.core.graph import GraphSpec
from ontogeny.core.pairs import PairBatch
from ontogeny.core.results import ModelFacts
from ontogeny.models.families import read_weights, require_family
from ontogeny.models.forward import Plan, bytes_of_run, embed, plan_runs, run
from ontogeny.models.layout import right_align
from ontogeny.models.memory import budget_on, halved
from ontogeny.models.readout import read_logits
from ontogeny.models.weights import Architecture, KVReaders, Weights
from ontogeny.tasks.tokenizer import FileTokenizer

TOLERANCE = {torch.float64: 1e-5, torch.float32: 2e-4, torch.bfloat16: 0.1}
"""Largest difference allowed, as a share of the largest number compared. Hugging Face computes rotary angles and
softmax in float32 whatever the dtype, so float64 agrees with it to about 1e-6 only."""


@dataclass(frozen=True)
class Subject:
    """A model under study. Its tensors need no gradient, and nothing changes them."""

    weights: Weights
    tokenizer: FileTokenizer | None
    """None where the folder holds no tokenizer.json."""
    parameters: int
    """Numbers in the model."""
    source: str
    """Where it was loaded from, for messages."""

    @property
    def architecture(self) -> Architecture:
        """Shape of the model."""
        return self.weights.architecture

    @property
    def graph(self) -> GraphSpec:
        """Writers, readers and edges."""
        return self.weights.architecture.graph

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.weights.embed.device

    @property
    def dtype(self) -> torch.dtype:
        """Working dtype."""
        return self.weights.embed.dtype

    @property
    def shape(self) -> str:
        """In words."""
        a = self.architecture
        return (
            f"{a.n_layers} layers, {a.n_heads} heads of {a.d_head}, d {a.d_model}, MLP {a.d_mlp}, vocabulary "
            f"{a.vocab}, context {a.context}, {self.parameters:,} parameters"
        )

    @property
    def facts(self) -> ModelFacts:
        """What records keep of the model."""
        a = self.architecture
        return ModelFacts(self.graph, a.d_model, a.d_head, self.parameters)

    def logits(
        self, tokens: Int[Tensor, "pairs tokens"], lengths: Int[Tensor, " pairs"]
    ) -> Float[Tensor, "pairs vocab"]:
        """Logits at the last real position of each right-padded prompt."""
        aligned, positions, padding = right_align(tokens.to(self.device), lengths.to(self.device))
        plan = plan_runs(self.weights, aligned, positions, padding)
        return read_logits(self.weights, run(self.weights, embed(self.weights, aligned), plan).final)


@dataclass(frozen=True)
class AlignedPairs:
    """A batch of prompt pairs laid out for the engine: right-aligned, with the window in which the two differ."""

    clean: Int[Tensor, "pairs window"]
    corrupted: Int[Tensor, "pairs window"]
    plan: Plan


def align_pairs(subject: Subject, batch: PairBatch, *, share_prefix: bool = True) -> AlignedPairs:
    """Lay out a batch; its window starts at the first column in which any pair differs.

    `share_prefix=False` makes the window the whole prompt, for runs whose prefix is not that of the clean run.
    """
    lengths = batch.lengths.to(subject.device)
    clean, positions, padding = right_align(batch.clean.to(subject.device), lengths)
    corrupted, _, _ = right_align(batch.corrupted.to(subject.device), lengths)
    differs = (clean != corrupted).any(dim=0).nonzero()
    first = int(differs[0]) if len(differs) else clean.shape[1] - 1
    start = first if share_prefix else 0
    plan = plan_runs(subject.weights, clean, positions, padding, start)
    return AlignedPairs(clean[:, start:], corrupted[:, start:], plan)


def pair_logits(
    subject: Subject, batch: PairBatch
) -> tuple[Float[Tensor, "pairs vocab"], Float[Tensor, "pairs vocab"]]:
    """Logits at the read position of the clean and of the corrupted prompts; their shared prefix is run once.

    In parts whose runs fit into `budget_on` the device, and in smaller ones where memory runs out all the same.

    Raises:
        ImpossibleRequest: a single pair does not fit into memory.
    """
    tokens, item = batch.clean.shape[1], subject.weights.embed.element_size()
    most = max(1, budget_on(subject.device) // bytes_of_run(subject.architecture, tokens, item))

    def both(size: int) -> list[tuple[Tensor, Tensor]]:
        return [_logits_of_pairs(subject, batch.take(slice(at, at + size))) for at in range(0, len(batch), size)]

    parts, _ = halved(both, min(len(batch), most), f"pair of {tokens} tokens")
    clean, corrupted = (torch.cat(logits) for logits in zip(*parts))
    return clean, corrupted


def _logits_of_pairs(
    subject: Subject, batch: PairBatch
) -> tuple[Float[Tensor, "pairs vocab"], Float[Tensor, "pairs vocab"]]:
    pairs = align_pairs(subject, batch)
    finals = (run(subject.weights, embed(subject.weights, t), pairs.plan).final for t in (pairs.clean, pairs.corrupted))
    clean, corrupted = (read_logits(subject.weights, final) for final in finals)
    return clean, corrupted


def pairs_within(subject: Subject, batch: PairBatch, budget: int | None = None) -> int:
    """How many pairs of this batch can be worked on at once, so that all writers' outputs fit into `budget` bytes.

    None: `budget_on` the device. This is the measure for evaluating circuits; attribution has its own
    (`attribution.base.pairs_at_once`).
    """
    a = subject.architecture
    one = 1.5 * subject.graph.n_writers * batch.clean.shape[1] * a.d_model * subject.weights.embed.element_size()
    return max(1, min(len(batch), int((budget or budget_on(subject.device)) / one)))


def check_batch(subject: Subject, batch: PairBatch) -> None:
    """Refuse prompt pairs that this model cannot be asked about, before any work is done on them.

    Raises:
        ImpossibleRequest: no pairs; clean and corrupted differ in shape; a length, token or answer out of range; or an
            example whose metric is constant, because its correct and incorrect answers cancel out.
    """
    if len(batch) == 0:
        raise ImpossibleRequest("There are no prompt pairs: at least one is needed.")
    if batch.clean.shape != batch.corrupted.shape or len(batch.clean) != len(batch):
        raise ImpossibleRequest(
            f"Clean and corrupted prompts must have the same number of tokens: got {tuple(batch.clean.shape)} and "
            f"{tuple(batch.corrupted.shape)} for {len(batch)} pairs."
        )
    longest = min(batch.clean.shape[1], subject.architecture.context)
    if not (int(batch.lengths.min()) >= 1 and int(batch.lengths.max()) <= longest):
        raise ImpossibleRequest(
            f"Prompts of {int(batch.lengths.min())} to {int(batch.lengths.max())} tokens: they must have 1 to "
            f"{longest}."
        )
    for name, ids in (("token", batch.clean), ("token", batch.corrupted), ("answer", batch.answer_ids)):
        if int(ids.min()) < 0 or int(ids.max()) >= subject.architecture.vocab:
            raise ImpossibleRequest(
                f"A prompt pair holds the {name} {int(ids.max() if ids.min() >= 0 else ids.min())}, but the vocabulary "
                f"of {subject.source} has the ids 0 to {subject.architecture.vocab - 1}."
            )
    same = batch.answer_ids[:, :, None] == batch.answer_ids[:, None, :]
    constant = ((same * batch.answer_weights[:, None, :]).sum(dim=-1) == 0).all(dim=1)
    if bool(constant.any()):
        raise ImpossibleRequest(
            f"The metric of {int(constant.sum())} of {len(batch)} examples is constant, the first of them example "
            f"{int(constant.nonzero()[0])}: their correct and incorrect answers cancel out. Give each at least one "
            "answer that is only correct or only incorrect."
        )


def load_subject(
    path: str | Path,
    *,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    kv_readers: KVReaders = "head",
    tokenizer: FileTokenizer | None = None,
) -> Subject:
    """Load a Hugging Face folder, and check it; for `kv_readers` see `families.read_weights`.

    `tokenizer` stands for the folder's own where that is known to be the same, or missing.

    Raises:
        BadCheckpoint: the folder or a file in it cannot be read, or weights are not finite; names the file.
        UnsupportedModel: the engine does not describe this family, or the checks of this module fail.
    """
    folder = Path(path)
    model = _load_model(folder, dtype)
    _refuse_not_finite(model, _weight_files(folder))
    tokenizer_file = folder / "tokenizer.json"
    if tokenizer is None and tokenizer_file.is_file():
        tokenizer = FileTokenizer(tokenizer_file)
    return _checked(model.to(device), str(path), tokenizer, kv_readers, reuse=True)


def subject_of(
    model: Any,
    *,
    source: str = "a model in memory",
    tokenizer: FileTokenizer | None = None,
    kv_readers: KVReaders = "head",
) -> Subject:
    """A Hugging Face model in memory as a subject, checked against its own forward pass.

    Raises:
        BadCheckpoint: weights are not finite.
        UnsupportedModel: the engine does not describe this family, or the checks of this module fail.
    """
    _refuse_not_finite(model, source)
    return _checked(model, source, tokenizer, kv_readers, reuse=False)


def _checked(model: Any, source: str, tokenizer: FileTokenizer | None, kv_readers: KVReaders, reuse: bool) -> Subject:
    """With `reuse` the model's memory becomes the subject's; it is compared with the model as it was before."""
    require_family(model)
    model = model.eval().requires_grad_(False)
    parameters, theirs = sum(p.numel() for p in model.parameters()), probe(model)
    subject = Subject(read_weights(model, kv_readers, reuse=reuse), tokenizer, parameters, source)
    check_subject(subject, theirs)
    return subject


@dataclass(frozen=True)
class Probe:
    """What a Hugging Face model makes of a few tokens."""

    tokens: Int[Tensor, "1 tokens"]
    residuals: tuple[Float[Tensor, "1 tokens d_model"], ...]
    """What each block reads."""
    logits: Float[Tensor, "1 vocab"]
    """At the last position."""


def probe(model: Any) -> Probe:
    """Run a Hugging Face model on a few tokens."""
    columns = min(6, model.config.max_position_embeddings)
    tokens = torch.arange(columns, device=model.device)[None] * 7919 % model.config.vocab_size
    with torch.no_grad():
        outputs = model(tokens, output_hidden_states=True, use_cache=False, logits_to_keep=1)
    return Probe(tokens, outputs.hidden_states[:-1], outputs.logits[:, -1])


def check_subject(subject: Subject, theirs: Probe) -> None:
    """Compare residuals and logits with the Hugging Face forward pass on a few tokens.

    Raises:
        UnsupportedModel: they differ.
    """
    lengths = torch.tensor([theirs.tokens.shape[1]], device=subject.device)
    aligned, positions, padding = right_align(theirs.tokens, lengths)
    plan = plan_runs(subject.weights, aligned, positions, padding)
    ours = run(subject.weights, embed(subject.weights, aligned), plan)
    for layer, (block, residual) in enumerate(zip(ours.blocks, theirs.residuals, strict=True)):
        _compare(subject, block.resid, residual, f"the input of block {layer} is not the sum of the writers before it")
    _compare(subject, read_logits(subject.weights, ours.final), theirs.logits, "the logits differ")


def _compare(subject: Subject, ours: Tensor, theirs: Tensor, what: str) -> None:
    difference = float((ours - theirs).abs().max())
    scale = max(1.0, float(theirs.abs().max()))
    if not difference <= TOLERANCE[subject.dtype] * scale:
        raise UnsupportedModel(
            f"{subject.source}: {what}: largest difference from the Hugging Face forward pass {difference:.2e} "
            f"at a scale of {scale:.2e} ({subject.dtype}). Its blocks are not as ontogeny/models/families.py says."
        )


def _refuse_not_finite(model: Any, where: str) -> None:
    bad = {name: weight for name, weight in model.state_dict().items() if not _all_finite(weight)}
    if bad:
        counts = {name: int((~weight.isfinite()).sum()) for name, weight in bad.items()}
        name, weight = next(iter(bad.items()))
        more = f" (and numbers of {len(bad) - 1} other tensors)" if len(bad) > 1 else ""
        raise NotFinite(
            f"{where}: {counts[name]} of {weight.numel()} numbers of {name}{more} are not finite. "
            "Make or download this checkpoint again.",
            sum(counts.values()),
        )


def _all_finite(weight: Tensor) -> bool:
    """A sum over numbers that are not finite is not finite; one that overflows is looked at number by number."""
    return bool(weight.sum().isfinite()) or bool(weight.isfinite().all())


def _load_model(folder: Path, dtype: torch.dtype) -> Any:
    from transformers import AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    if not (folder / "config.json").is_file():
        raise BadCheckpoint(f"{folder / 'config.json'} does not exist: a Hugging Face checkpoint folder was expected.")
    try:
        return AutoModelForCausalLM.from_pretrained(str(folder), dtype=dtype, local_files_only=True)
    except Exception as error:
        raise BadCheckpoint(
            f"{_weight_files(folder)} cannot be read: {type(error).__name__}: {error}. "
            "The file may be truncated: make or download this checkpoint again."
        ) from error


def _weight_files(folder: Path) -> str:
    files = sorted(f for f in folder.iterdir() if f.suffix in {".safetensors", ".bin"})
    return ", ".join(str(f) for f in files) or f"{folder} (no weight files)"
