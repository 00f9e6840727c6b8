"""The ladder as a source of checkpoints: members are trained here."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from ontogeny.models.checkpoints import Report, register_source
from ontogeny.params import CheckpointsParams, Params, split_member


@dataclass(frozen=True)
class LadderSource:
    """Trains a member on the corpus of the study."""

    settings: CheckpointsParams
    corpus: Path
    device: str

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


def _make(params: Params, corpus: Path, device: str) -> LadderSource:
    return LadderSource(params.checkpoints, corpus, device)


register_source("ladder", _make)
