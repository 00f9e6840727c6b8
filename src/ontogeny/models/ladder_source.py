"""The ladder as a source of checkpoints: members are trained here."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ontogeny.core.results import CheckpointRef
from ontogeny.core.schedule import ANALYSES
from ontogeny.models.checkpoints import Forecast, Report, StudyFolders, register_source
from ontogeny.params import CheckpointsParams, Params, split_member

if TYPE_CHECKING:
    from ontogeny.models.neox import NeoxConfig


@dataclass(frozen=True)
class LadderSource:
    """Trains a member on the corpus of the study."""

    settings: CheckpointsParams = field(hash=False)
    study: Path
    """Holds data/."""
    device: str

    @property
    def corpus(self) -> Path:
        """What it trains on."""
        return self.study / "data" / "corpus"

    def check(self) -> None:
        """The params say all that is needed."""

    def forecast(self, member: str) -> tuple[Forecast, ...]:
        """The schedule of METHODS 11.6; weights are float32."""
        from ontogeny.models.ladder import checkpoint_steps

        shape = self._neox(member)
        d, L = shape.d_model, shape.layers
        size = 4 * (2 * shape.vocabulary * d + L * (12 * d * d + 13 * d) + 2 * d)
        return tuple(Forecast(s, self.tokens(s), ANALYSES, size, 0) for s in checkpoint_steps(self.settings))

    def config(self, member: str) -> dict[str, Any]:
        """As in its checkpoints; without a corpus, for the vocabulary that the tasks' words make alone."""
        return dict(self._neox(member).to_json())

    def opened(self, ref: CheckpointRef) -> AbstractContextManager[Path]:
        """Checkpoints lie in the study."""
        return StudyFolders(self.study).opened(ref)

    def ahead(self, refs: Sequence[CheckpointRef]) -> AbstractContextManager[None]:  # noqa: ARG002
        """They are all there."""
        return nullcontext()

    def _neox(self, member: str) -> NeoxConfig:
        from ontogeny.models.neox import neox_config
        from ontogeny.tasks.corpus import lexicon, load_tokenizer
        from ontogeny.tasks.tokenizer import pieces

        made = (self.corpus / "tokenizer" / "tokenizer.json").exists()
        words = load_tokenizer(self.corpus).ids() if made else {piece for text in lexicon() for piece in pieces(text)}
        scale, settings = self.settings.scales[split_member(member)[0]], self.settings
        return neox_config(scale, settings.context, len(words), settings.rotary)

    def facts(self, member: str) -> dict[str, object]:
        """Scale, seed, schedule, the corpus' tokens and the kind of device."""
        scale, seed = split_member(member)
        digest = hashlib.sha256()
        for file in (self.corpus / "tokens.safetensors", self.corpus / "tokenizer" / "tokenizer.json"):
            digest.update(file.read_bytes())
        return {
            "source": "ladder",
            "scale": self.settings.scales[scale].model_dump(mode="json"),
            "settings": self.settings.model_dump(mode="json", exclude={"scales", "save_every"}),
            "seed": seed,
            "corpus": digest.hexdigest(),
            "device": self.device.split(":")[0],
        }

    def cost(self, member: str) -> float:
        """Weights of the blocks, plus what a layer costs however narrow it is."""
        scale = self.settings.scales[split_member(member)[0]]
        return scale.layers * (12.0 * scale.d_model**2 + 20_000)

    def tokens(self, step: int) -> int:
        """Every step reads `batch` rows of `context` tokens."""
        return step * self.settings.batch * self.settings.context

    def bring(self, member: str, folder: Path, report: Report) -> None:
        """Train `member`; the training state lies beside its checkpoints."""
        from ontogeny.models.ladder import train_member

        scale, seed = split_member(member)
        steps = self.settings.steps
        train_member(
            self.settings.scales[scale],
            self.settings,
            self.corpus,
            folder,
            folder / "state",
            seed,
            self.device,
            lambda step, loss: report(step / steps, f"step {step}/{steps}, loss {loss:.2f}"),
        )


def _make(params: Params, study: Path, project: Path) -> LadderSource:  # noqa: ARG001
    assert isinstance(params.checkpoints, CheckpointsParams)
    return LadderSource(params.checkpoints, study, params.execution.device)


register_source("ladder", _make)
