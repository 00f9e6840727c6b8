"""Bringing checkpoints: resumed, recognised as complete, made anew when damaged."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

from ontogeny.execution.training import Training, bring, is_complete, training_job


@dataclass(frozen=True)
class FakeSource:
    """Writes two checkpoints and counts how often it was asked."""

    calls: list[str]
    weight: float = 1.0

    def facts(self, member: str) -> dict[str, object]:
        return {"member": member, "weight": self.weight}

    def cost(self, _: str) -> float:
        return 2.5

    def tokens(self, step: int) -> int:
        return 10 * step

    def bring(self, member: str, folder: Path, report: Callable[[float, str], None]) -> None:
        self.calls.append(member)
        for step in (0, 8):
            (folder / f"step{step}").mkdir(exist_ok=True)
            save_file({"w": torch.tensor([self.weight, step])}, folder / f"step{step}" / "model.safetensors")
        (folder / "state").mkdir(exist_ok=True)
        report(1.0, "done")


def told(share: float, note: str = "") -> None:
    assert (share, note) == (1.0, "done")


def test_a_training_is_done_once(tmp_path: Path) -> None:
    training = Training(FakeSource([]), "small-s0", tmp_path)
    assert not is_complete(training)
    bring(training, report=told)
    bring(training, report=told)
    assert is_complete(training)
    assert training.source.calls == ["small-s0"]  # type: ignore[attr-defined]
    assert not (training.folder / "state").exists()
    assert training_job(training).weight == 2.5


def test_other_facts_are_another_training(tmp_path: Path) -> None:
    bring(Training(FakeSource([]), "small-s0", tmp_path), report=told)
    assert not is_complete(Training(FakeSource([]), "small-s1", tmp_path))
    assert not is_complete(Training(FakeSource([], 2.0), "small-s0", tmp_path))


def test_an_interrupted_training_is_not_complete(tmp_path: Path) -> None:
    training = Training(FakeSource([]), "small-s0", tmp_path)
    training.folder.mkdir()
    training.source.bring("small-s0", training.folder, told)
    assert not is_complete(training)
    assert (training.folder / "step8").exists()


def test_damage_is_noticed_and_repaired(tmp_path: Path) -> None:
    training = Training(FakeSource([]), "small-s0", tmp_path)
    for damage in (
        lambda: shutil.rmtree(training.folder / "step8"),
        lambda: (training.folder / "step8" / "model.safetensors").write_bytes(b"short"),
        lambda: save_file({"w": torch.tensor([9.0])}, training.folder / "step8" / "model.safetensors"),
    ):
        bring(training, report=told)
        assert is_complete(training)
        damage()
        assert not is_complete(training)
        assert not training.folder.exists()
