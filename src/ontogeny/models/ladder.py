"""Training of the ladder: GPT-NeoX models from scratch, all on the same text in the same order (METHODS 11).

The forward pass is our own (`logits_at`), on parameters named as Hugging Face names them: one mask a row keeps
documents apart, and the loss is computed with its gradient in one go. A test holds it against the stock class.
Checkpoints are ordinary Hugging Face folders. The training state (parameters, optimiser, step) is saved atomically, and
the order of rows is a function of seed and step, so that a run that was killed ends with the same bytes.
"""

from __future__ import annotations

import bisect
import json
import math
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from safetensors.torch import load_file, save_file
from torch import Tensor

from ontogeny.params import CheckpointsParams, ScaleParams
from ontogeny.tasks.corpus import DECIDED, UNDECIDED, TokenStream, load_stream, load_tokenizer

Parameters = dict[str, Tensor]
OnStep = Callable[[int, float], None]
ROTARY_FRACTION = 0.25
ROTARY_BASE = 10000.0
EPSILON = 1e-5
MOMENTUM = 0.95
BETAS = (0.9, 0.98)


def train_member(
    scale: ScaleParams,
    settings: CheckpointsParams,
    corpus_dir: Path,
    out_dir: Path,
    state_dir: Path,
    seed: int,
    device: str,
    on_step: OnStep,
) -> None:
    """Train one member and write its checkpoints to ``out_dir/step{N}``.

    Sets one torch thread on a CPU: two threads give other bytes, and members run side by side in processes. Goes on
    from `state_dir` if a run of the same arguments was interrupted; the caller names it by their fingerprint.
    `on_step(step, loss)` is called after every step.
    """
    if device == "cpu":
        torch.set_num_threads(1)
    stream = load_stream(corpus_dir)
    rows = pack(stream, settings.context)
    config = neox_config(scale, settings.context, len(load_tokenizer(corpus_dir).ids()))
    parameters = initial_parameters(config, seed)
    parameters = {name: value.to(device).requires_grad_() for name, value in parameters.items()}
    optimiser = Optimiser(parameters, scale, settings)
    for partial in out_dir.glob(".partial-*"):
        shutil.rmtree(partial)
    first = _restore(state_dir, parameters, optimiser)
    due = set(checkpoint_steps(settings))
    for step in range(first, settings.steps + 1):
        if step in due:
            write_checkpoint(out_dir, step, parameters, config, corpus_dir / "tokenizer")
        if step > first and (step in due or step % settings.save_every == 0):
            _save(state_dir, step, parameters, optimiser)
        if step == settings.steps:
            break
        batch = rows.take(row_order(len(rows.ids), settings.batch, step, seed), settings, device)
        loss = weighted_loss(parameters, config, batch)
        loss.backward()
        optimiser.step(step)
        on_step(step + 1, loss.item())


def checkpoint_steps(settings: CheckpointsParams) -> list[int]:
    """The schedule of METHODS 11.6: the first steps, `per_octave` an octave, then evenly; the last step included."""
    last = settings.steps
    dense_until = round(settings.even_from * last)
    start = max(settings.first_steps, default=1) or 1
    octaves = math.log2(max(dense_until, start) / start)
    dense = [round(start * 2 ** (i / settings.per_octave)) for i in range(int(octaves * settings.per_octave) + 1)]
    even = [
        round(dense_until + (last - dense_until) * (i + 1) / settings.even_count) for i in range(settings.even_count)
    ]
    return sorted({s for s in (*settings.first_steps, *dense, *even, last) if s <= last})


# --- Data ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Batch:
    """Rows of a step: each position predicts the next one of its document."""

    inputs: Int[Tensor, "rows tokens"]
    targets: Int[Tensor, "rows tokens"]
    weights: Float[Tensor, "rows tokens"]
    """Weight of each target in the loss, 0 across documents; they sum to 1."""
    mask: Bool[Tensor, "rows 1 tokens tokens"]
    """True where a query (rows of the matrix) may look at a key (columns)."""


@dataclass(frozen=True)
class Rows:
    """The corpus in rows of `context` tokens, whole documents only."""

    ids: Int[Tensor, "rows tokens"]
    roles: Int[Tensor, "rows tokens"]
    documents: Int[Tensor, "rows tokens"]
    """Number of the document within its row; -1 where the row is empty."""

    def take(self, chosen: Int[Tensor, " rows"], settings: CheckpointsParams, device: str) -> Batch:
        """The rows at `chosen`, ready for a step."""
        ids, roles, documents = self.ids[chosen].long(), self.roles[chosen], self.documents[chosen]
        weight = torch.ones(3)
        weight[UNDECIDED], weight[DECIDED] = settings.undecided_weight, settings.decided_weight
        same = (documents[:, 1:] == documents[:, :-1]) & (documents[:, 1:] >= 0)
        weights = F.pad(weight[roles[:, 1:].long()] * same, (0, 1))
        causal = torch.ones(ids.shape[1], ids.shape[1], dtype=torch.bool).tril()
        mask = (documents[:, :, None] == documents[:, None, :]) & causal
        targets = F.pad(ids[:, 1:], (0, 1))
        moved = [t.to(device) for t in (ids, targets, weights / weights.sum(), mask[:, None])]
        return Batch(*moved)


def pack(stream: TokenStream, context: int, window: int = 64) -> Rows:
    """Put whole documents into rows: of the next `window` documents always the longest that still fits."""
    starts = stream.starts.long()
    lengths = (starts[1:] - starts[:-1]).tolist()
    if max(lengths) > context:
        raise ValueError(f"A document has {max(lengths)} tokens, but a row only {context}.")
    waiting = sorted((length, i) for i, length in enumerate(lengths[:window]))
    coming = iter(range(window, len(lengths)))
    placed: list[tuple[int, int, int]] = []
    row = used = number = 0
    while waiting:
        fit = bisect.bisect_right(waiting, (context - used, len(lengths))) - 1
        if fit < 0:
            row, used, number = row + 1, 0, 0
            continue
        length, document = waiting.pop(fit)
        placed.append((document, row * context + used, number))
        used, number = used + length, number + 1
        if (new := next(coming, None)) is not None:
            bisect.insort(waiting, (lengths[new], new))
    document, begin, numbers = torch.tensor(placed).T
    sizes = torch.tensor(lengths)[document]
    source, target = _spans(starts[document], sizes), _spans(begin, sizes)
    rows = Rows(
        torch.zeros(row + 1, context, dtype=stream.ids.dtype),
        torch.zeros(row + 1, context, dtype=stream.roles.dtype),
        torch.full((row + 1, context), -1, dtype=torch.int16),
    )
    rows.ids.view(-1)[target] = stream.ids[source]
    rows.roles.view(-1)[target] = stream.roles[source]
    rows.documents.view(-1)[target] = numbers.repeat_interleave(sizes).to(torch.int16)
    return rows


def _spans(begins: Int[Tensor, " n"], sizes: Int[Tensor, " n"]) -> Int[Tensor, " total"]:
    """The numbers ``begin, begin + 1, ...``, `size` of them, for each pair in turn."""
    before = sizes.cumsum(0) - sizes
    return (begins - before).repeat_interleave(sizes) + torch.arange(int(sizes.sum()))


def row_order(rows: int, batch: int, step: int, seed: int) -> Int[Tensor, " batch"]:
    """Rows of a step: every epoch is a new permutation, a function of seed and epoch alone."""
    epoch, place = divmod(step, rows // batch)
    generator = torch.Generator().manual_seed(1_000_003 * seed + epoch)
    return torch.randperm(rows, generator=generator)[place * batch : (place + 1) * batch]


# --- Model ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class NeoxConfig:
    """Shape of a GPT-NeoX model."""

    layers: int
    heads: int
    d_model: int
    vocabulary: int
    context: int

    @property
    def d_head(self) -> int:
        """Width of a head."""
        return self.d_model // self.heads

    def to_json(self) -> dict[str, object]:
        """The config.json that `AutoConfig` reads."""
        return {
            "architectures": ["GPTNeoXForCausalLM"],
            "attention_bias": True,
            "attention_dropout": 0.0,
            "bos_token_id": 0,
            "eos_token_id": 0,
            "hidden_act": "gelu",
            "hidden_dropout": 0.0,
            "hidden_size": self.d_model,
            "intermediate_size": 4 * self.d_model,
            "layer_norm_eps": EPSILON,
            "max_position_embeddings": self.context,
            "model_type": "gpt_neox",
            "num_attention_heads": self.heads,
            "num_hidden_layers": self.layers,
            "rope_parameters": {
                "partial_rotary_factor": ROTARY_FRACTION,
                "rope_theta": ROTARY_BASE,
                "rope_type": "default",
            },
            "tie_word_embeddings": False,
            "torch_dtype": "float32",
            "use_parallel_residual": True,
            "vocab_size": self.vocabulary,
        }


def neox_config(scale: ScaleParams, context: int, vocabulary: int) -> NeoxConfig:
    """The model of a scale."""
    return NeoxConfig(scale.layers, scale.heads, scale.d_model, vocabulary, context)


def initial_parameters(config: NeoxConfig, seed: int) -> Parameters:
    """As Pythia: normal with variance 2/(5 d), the matrices that write to the residual with 2/(L sqrt(d))."""
    generator = torch.Generator().manual_seed(seed)
    d = config.d_model
    small, writing = math.sqrt(2 / (5 * d)), 2 / (config.layers * math.sqrt(d))

    def normal(*shape: int, std: float = small) -> Tensor:
        return torch.randn(*shape, generator=generator) * std

    parameters = {"gpt_neox.embed_in.weight": normal(config.vocabulary, d)}
    for layer in range(config.layers):
        at = f"gpt_neox.layers.{layer}."
        parameters |= {
            at + "input_layernorm.weight": torch.ones(d),
            at + "input_layernorm.bias": torch.zeros(d),
            at + "post_attention_layernorm.weight": torch.ones(d),
            at + "post_attention_layernorm.bias": torch.zeros(d),
            at + "attention.query_key_value.weight": normal(3 * d, d),
            at + "attention.query_key_value.bias": torch.zeros(3 * d),
            at + "attention.dense.weight": normal(d, d, std=writing),
            at + "attention.dense.bias": torch.zeros(d),
            at + "mlp.dense_h_to_4h.weight": normal(4 * d, d),
            at + "mlp.dense_h_to_4h.bias": torch.zeros(4 * d),
            at + "mlp.dense_4h_to_h.weight": normal(d, 4 * d, std=writing),
            at + "mlp.dense_4h_to_h.bias": torch.zeros(d),
        }
    return parameters | {
        "gpt_neox.final_layer_norm.weight": torch.ones(d),
        "gpt_neox.final_layer_norm.bias": torch.zeros(d),
        "embed_out.weight": normal(config.vocabulary, d),
    }


def logits_at(
    parameters: Parameters,
    config: NeoxConfig,
    inputs: Int[Tensor, "rows tokens"],
    mask: Bool[Tensor, "rows 1 tokens tokens"],
    at_positions: Bool[Tensor, "rows tokens"],
) -> Float[Tensor, "positions vocabulary"]:
    """Logits at the chosen positions; rotary angles depend on distances only, so documents need no positions of their
    own.
    """
    d = config.d_model
    cos, sin = _rotary(inputs.shape[1], config, inputs.device)

    def norm(x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, (d,), parameters[name + ".weight"], parameters[name + ".bias"], EPSILON)

    def linear(x: Tensor, name: str) -> Tensor:
        return F.linear(x, parameters[name + ".weight"], parameters[name + ".bias"])

    x = F.embedding(inputs, parameters["gpt_neox.embed_in.weight"])
    for layer in range(config.layers):
        at = f"gpt_neox.layers.{layer}."
        joint = linear(norm(x, at + "input_layernorm"), at + "attention.query_key_value")
        split = joint.view(*inputs.shape, config.heads, 3, config.d_head).permute(3, 0, 2, 1, 4)
        q, k, v = split.unbind(0)
        mixed = F.scaled_dot_product_attention(_turn(q, cos, sin), _turn(k, cos, sin), v, attn_mask=mask)
        heads = linear(mixed.transpose(1, 2).reshape(x.shape), at + "attention.dense")
        hidden = F.gelu(linear(norm(x, at + "post_attention_layernorm"), at + "mlp.dense_h_to_4h"))
        x = x + heads + linear(hidden, at + "mlp.dense_4h_to_h")
    return F.linear(norm(x[at_positions], "gpt_neox.final_layer_norm"), parameters["embed_out.weight"])


def _rotary(tokens: int, config: NeoxConfig, device: torch.device) -> tuple[Tensor, Tensor]:
    width = int(config.d_head * ROTARY_FRACTION)
    rates = 1.0 / ROTARY_BASE ** (torch.arange(0, width, 2, device=device).float() / width)
    angles = torch.outer(torch.arange(tokens, device=device).float(), rates).repeat(1, 2)
    return angles.cos(), angles.sin()


def _turn(x: Float[Tensor, "rows heads tokens d_head"], cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding of the first quarter of each head, halves paired as GPT-NeoX pairs them."""
    width = cos.shape[-1]
    low, high, rest = x.split([width // 2, width // 2, x.shape[-1] - width], -1)
    c, s = cos[:, : width // 2], sin[:, : width // 2]
    return torch.cat([low * c - high * s, high * c + low * s, rest], -1)


class _WeightedCrossEntropy(torch.autograd.Function):
    """Sum of weight x cross entropy, with the gradient made in the forward pass: half the time of the stock one."""

    @staticmethod
    def forward(ctx, scores: Tensor, targets: Tensor, weights: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        """`scores` [n, vocabulary], `targets` [n], `weights` [n]."""
        shares = (scores - scores.amax(-1, keepdim=True)).exp_()
        total = shares.sum(-1, keepdim=True)
        shares.mul_(weights[:, None] / total)
        at = targets[:, None]
        loss = -(weights * (shares.gather(1, at)[:, 0] / weights).clamp_min(1e-30).log()).sum()
        ctx.save_for_backward(shares.scatter_add_(1, at, -weights[:, None]))
        return loss

    @staticmethod
    def backward(ctx, upstream: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[no-untyped-def]
        """Gradient with respect to the scores."""
        (gradient,) = ctx.saved_tensors
        return gradient * upstream, None, None


def weighted_loss(parameters: Parameters, config: NeoxConfig, batch: Batch) -> Tensor:
    """Weighted mean of the cross entropy in nats; positions of weight 0 are not unembedded."""
    counted = batch.weights > 0
    scores = logits_at(parameters, config, batch.inputs, batch.mask, counted)
    return _WeightedCrossEntropy.apply(scores, batch.targets[counted], batch.weights[counted])


# --- Optimiser -----------------------------------------------------------------------------------------------------


class Optimiser:
    """AdamW, with Muon for the matrices inside the blocks if the settings say so.

    Muon (Jordan et al. 2024): momentum made orthogonal by Newton-Schulz; q, k and v are taken as separate matrices.
    """

    def __init__(self, parameters: Parameters, scale: ScaleParams, settings: CheckpointsParams) -> None:
        self.parameters, self.scale, self.settings = parameters, scale, settings
        self.by_muon = [
            n for n, p in parameters.items() if settings.optimiser == "muon" and ".layers." in n and p.ndim == 2
        ]
        self.by_adam = [name for name in parameters if name not in self.by_muon]
        self.state: Parameters = {f"first.{name}": torch.zeros_like(p) for name, p in parameters.items()}
        self.state |= {f"second.{name}": torch.zeros_like(parameters[name]) for name in self.by_adam}

    @torch.no_grad()
    def step(self, step: int) -> None:
        """Update in place with the gradients there are, and clear them; `step` counts from 0."""
        height = schedule(step, self.settings)
        s = self.settings
        rate = s.learning_rate * (self.scale.d_model / s.reference_width) ** s.width_exponent * height
        for name in self.by_adam:
            self._adam(name, rate, step + 1)
        if self.by_muon:
            self._muon(s.muon_learning_rate * height)
        for parameter in self.parameters.values():
            parameter.grad = None

    def _adam(self, name: str, rate: float, count: int) -> None:
        parameter, first, second = self.parameters[name], self.state[f"first.{name}"], self.state[f"second.{name}"]
        gradient = parameter.grad
        assert gradient is not None
        first.lerp_(gradient, 1 - BETAS[0])
        second.mul_(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
        if parameter.ndim == 2:
            parameter.mul_(1 - rate * self.settings.weight_decay)
        spread = (second / (1 - BETAS[1] ** count)).sqrt_().add_(1e-8)
        parameter.addcdiv_(first, spread, value=-rate / (1 - BETAS[0] ** count))

    def _muon(self, rate: float) -> None:
        updates: dict[str, Tensor] = {}
        for name in self.by_muon:
            gradient, momentum = self.parameters[name].grad, self.state[f"first.{name}"]
            assert gradient is not None
            momentum.lerp_(gradient, 1 - MOMENTUM)
            updates[name] = self._as_matrices(name, gradient.lerp(momentum, MOMENTUM))
        for shape in dict.fromkeys(update.shape[1:] for update in updates.values()):
            names = [name for name, update in updates.items() if update.shape[1:] == shape]
            made = orthogonal(torch.cat([updates[name] for name in names])) * max(1.0, shape[0] / shape[1]) ** 0.5
            for name, update in zip(names, made.split([len(updates[name]) for name in names])):
                parameter = self.parameters[name]
                parameter.mul_(1 - rate * self.settings.weight_decay)
                parameter.add_(self._as_parameter(name, update), alpha=-rate)

    def _as_matrices(self, name: str, value: Tensor) -> Float[Tensor, "n out in"]:
        """A parameter as the matrices that Muon sees: the joint q, k, v (heads, 3, d_head, d) as three."""
        if "query_key_value" not in name:
            return value[None]
        d = self.scale.d_model
        return value.view(self.scale.heads, 3, -1, d).transpose(0, 1).reshape(3, d, d)

    def _as_parameter(self, name: str, value: Float[Tensor, "n out in"]) -> Tensor:
        """Inverse of `_as_matrices`."""
        if "query_key_value" not in name:
            return value[0]
        d = self.scale.d_model
        return value.view(3, self.scale.heads, -1, d).transpose(0, 1).reshape(3 * d, d)


def orthogonal(x: Float[Tensor, "n out in"]) -> Float[Tensor, "n out in"]:
    """Nearly the orthogonal factor of each matrix: five quintic Newton-Schulz steps, singular values end in about
    0.7..1.2.
    """
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        a = x @ x.mT
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return x.mT if tall else x


def schedule(step: int, settings: CheckpointsParams) -> float:
    """Height of the learning rate, 0..1: a rise, a plateau, a linear fall to `final_rate`."""
    rise = (step + 1) / max(1.0, settings.warmup * settings.steps)
    left = (settings.steps - step) / (settings.decay * settings.steps)
    return min(1.0, rise, settings.final_rate + (1 - settings.final_rate) * left)


# --- Disk ----------------------------------------------------------------------------------------------------------


def write_checkpoint(out_dir: Path, step: int, parameters: Parameters, config: NeoxConfig, tokenizer_dir: Path) -> None:
    """An ordinary Hugging Face folder ``step{N}``, there in full or not at all."""
    final, partial = out_dir / f"step{step}", out_dir / f".partial-step{step}"
    if final.exists():
        return
    partial.mkdir(parents=True)
    for file in sorted(tokenizer_dir.iterdir()):
        shutil.copyfile(file, partial / file.name)
    text = json.dumps(config.to_json(), indent=1, sort_keys=True) + "\n"
    (partial / "config.json").write_text(text, encoding="utf-8")
    tensors = {name: value.detach().cpu().contiguous() for name, value in parameters.items()}
    save_file(tensors, partial / "model.safetensors", metadata={"format": "pt"})
    for file in partial.iterdir():
        _sync(file)
    os.rename(partial, final)
    _sync(out_dir)


def _save(state_dir: Path, step: int, parameters: Parameters, optimiser: Optimiser) -> None:
    """The training state after `step` steps, in one file that is replaced in one go."""
    state_dir.mkdir(parents=True, exist_ok=True)
    tensors = {f"parameter.{name}": value.detach().cpu() for name, value in parameters.items()}
    tensors |= {f"optimiser.{name}": value.cpu() for name, value in optimiser.state.items()}
    tensors["step"] = torch.tensor(step)
    save_file(tensors, state_dir / "state.partial")
    _sync(state_dir / "state.partial")
    os.replace(state_dir / "state.partial", state_dir / "state.safetensors")
    _sync(state_dir)


def _restore(state_dir: Path, parameters: Parameters, optimiser: Optimiser) -> int:
    """Load the saved state in place; the number of steps done, 0 if there is no state."""
    path = state_dir / "state.safetensors"
    if not path.exists():
        return 0
    tensors = load_file(path)
    with torch.no_grad():
        for name, value in parameters.items():
            value.copy_(tensors[f"parameter.{name}"])
        for name, value in optimiser.state.items():
            value.copy_(tensors[f"optimiser.{name}"])
    return int(tensors["step"])


def _sync(path: Path) -> None:
    """Wait until a file or folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
