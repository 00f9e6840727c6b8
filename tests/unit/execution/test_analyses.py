"""A checkpoint's job: what is computed again after which change, and that nothing else is."""

import dataclasses
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from ontogeny.analysis import ANALYSES, analyse_checkpoint
from ontogeny.components.base import ROLES, Material, Role, register
from ontogeny.core.errors import BadCheckpoint
from ontogeny.core.pairs import SPLITS, PromptPair, TaskDataset
from ontogeny.core.results import CheckpointRef
from ontogeny.core.roles import RoleScores
from ontogeny.execution.analyses import Work, analyse, analysis_job, assemble, examination_of, weights_of
from ontogeny.models.checkpoints import StudyFolders, weights_digest
from ontogeny.models.subject import Subject, load_subject
from ontogeny.params import AnalyseParams, BehaviourParams, RolesParams, ThresholdParams
from ontogeny.records.datasets import write_dataset
from ontogeny.tasks.tokenizer import train_tokenizer
from support.engine import neox_model

WORDS = "abcdefghijklmnop"


def told(share: float, note: str = "") -> None:
    assert 0 <= share <= 1
    assert note in ("letters", "roles")


@dataclass
class FakeRoles:
    """A registry of its own: `weights` is measured on weights alone, `product` builds on it and on a threshold."""

    measured: list[str] = field(default_factory=list)

    def add(self, name: str, **facts: Any) -> None:
        def score(subject: Subject, material: Material, settings: RolesParams) -> RoleScores:
            self.measured.append(name)
            assert set(material.roles) == set(ROLES[name].needs)
            values = torch.arange(4.0).view(2, 2) / 4 + settings.thresholds.successor * bool(material.roles)
            details = {"twice": 2 * values}
            return RoleScores(name, "measured", "", values, values / 10, details, {"heads": subject.graph.n_heads})

        def holds(scores: RoleScores, thresholds: ThresholdParams) -> torch.Tensor:
            return scores.score >= thresholds.attention

        register(Role(name, name, "nobody", "1", score, holds, **facts))


@pytest.fixture(scope="module", autouse=True)
def fakes() -> Iterator[FakeRoles]:
    """The registry holds fakes while these tests run."""
    kept = dict(ROLES)
    ROLES.clear()
    fakes = FakeRoles()
    fakes.add("weights", sections=("successor",))
    fakes.add("product", sections=("thresholds",), needs=("weights",))
    yield fakes
    ROLES.clear()
    ROLES.update(kept)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Work:
    """One checkpoint of a random model, and a task on letters."""
    root = tmp_path_factory.mktemp("study")
    model, folder = neox_model(double=False), root / "data" / "step8"
    model.save_pretrained(folder)
    tokenizer = train_tokenizer([" ".join(WORDS)], [f" {w}" for w in WORDS], folder)
    pairs = tuple(PromptPair(f"a {x} c", f"a {y} c", (f" {x}",), (f" {y}",), "f", {}) for x, y in zip(WORDS, WORDS[3:]))
    dataset = TaskDataset("letters", "logit_diff", "other", 0, tokenizer.digest, dict.fromkeys(SPLITS, pairs))
    write_dataset(root / "letters", dataset)
    ref = CheckpointRef("ladder", "small-s0", "small", 0, 8, 64, "data/step8", weights_digest(folder))
    return Work(
        ref=ref,
        source=StudyFolders(root),
        datasets={"letters": root / "letters"},
        digests={"letters": dataset.digest},
        tokenizer=tokenizer.digest,
        corpus=None,
        text_digest=None,
        settings=AnalyseParams(behaviour=BehaviourParams(resamples=100)),
        baselines=False,
        last=True,
        cache=root / "jobs",
        device="cpu",
    )


def changed(work: Work, section: str, **values: Any) -> Work:
    part = getattr(work.settings, section).model_copy(update=values)
    return dataclasses.replace(work, settings=work.settings.model_copy(update={section: part}))


def other_units(work: Work, other: Work) -> set[str]:
    """Analyses whose fingerprint is another."""
    a, b = work.units["letters"] | work.roles, other.units["letters"] | other.roles
    return {name for name in a if a[name] != b[name]}


def test_the_parts_are_those_of_the_whole_analysis(work: Work) -> None:
    """Through the cache comes what `analyse_checkpoint` returns directly."""
    from ontogeny.records.datasets import read_dataset

    assert not work.is_done
    analyse(work, report=told)
    assert work.is_done
    found = assemble(work)
    subject = load_subject(work.source.root / work.ref.path)
    datasets = {"letters": read_dataset(work.datasets["letters"])}
    direct = analyse_checkpoint(subject, work.ref, datasets, work.settings)
    assert found.ref == direct.ref
    assert found.model == direct.model
    assert repr(found.tasks["letters"].behaviour) == repr(direct.tasks["letters"].behaviour)
    assert repr(found.tasks["letters"].circuit.curve) == repr(direct.tasks["letters"].circuit.curve)
    assert found.tasks["letters"].circuit.status == direct.tasks["letters"].circuit.status
    scores = found.tasks["letters"].scores, direct.tasks["letters"].scores
    assert (scores[0] is None) == (scores[1] is None)
    if scores[0] is not None and scores[1] is not None:
        assert torch.equal(scores[0].values, scores[1].values)
    for role in ("weights", "product"):
        assert torch.equal(found.roles[role].score, direct.roles[role].score)
        assert torch.equal(found.roles[role].details["twice"], 2 * found.roles[role].score)
    assert list(found.roles) == list(direct.roles) == ["weights", "product"]
    assert found.holders == direct.holders == {"weights": ((1, 1), (1, 0)), "product": ((1, 1), (1, 0), (0, 1), (0, 0))}
    assert examination_of(work).step == 8
    assert set(examination_of(work).blind) == {"letters"}


def test_a_second_time_nothing_is_computed(work: Work) -> None:
    analyse(work, report=told)
    times = {path: path.stat().st_mtime_ns for path in work.cache.rglob("*.safetensors")}
    assert len(times) == len(ANALYSES) + len(ROLES) + 4
    analyse(work, report=told)
    assert {path: path.stat().st_mtime_ns for path in work.cache.rglob("*.safetensors")} == times


def test_only_what_is_missing_is_computed(work: Work) -> None:
    analyse(work, report=told)
    circuit = work.jobs.path(work.units["letters"]["circuit"])
    before = {path: path.stat().st_mtime_ns for path in work.cache.rglob("*.safetensors") if path != circuit}
    circuit.write_bytes(b"cut short")
    with pytest.raises(Exception, match="missing or damaged"):
        assemble(work)
    analyse(work, report=told)
    assert assemble(work).tasks["letters"].circuit.cap > 0
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_setting_changes_the_fingerprints_of_what_depends_on_it(work: Work) -> None:
    after_circuit = {"stability", "verification"}
    assert other_units(work, changed(work, "stability", seed=1)) == {"stability"}
    assert other_units(work, changed(work, "baselines", seed=1)) == {"circuit"} | after_circuit
    assert other_units(work, changed(work, "search", threshold=0.5)) == {"circuit"} | after_circuit
    assert other_units(work, changed(work, "attribution", steps=7)) == {"scores", "circuit"} | after_circuit
    all_of_the_task = {analysis.name for analysis in ANALYSES}
    assert other_units(work, changed(work, "behaviour", seed=1)) == all_of_the_task
    assert other_units(work, dataclasses.replace(work, baselines=True)) == {"circuit"} | after_circuit
    precise = dataclasses.replace(work, settings=work.settings.model_copy(update={"precision": "float64"}))
    assert other_units(work, changed(work, "algorithm", seed=1)) == set(), "that is of IOI only"
    assert other_units(work, precise) == all_of_the_task | set(ROLES)
    assert other_units(work, dataclasses.replace(work, device="cuda")) == all_of_the_task | set(ROLES)


def changed_roles(work: Work, section: str, **values: Any) -> Work:
    """Another setting of roles."""
    part = getattr(work.settings.roles, section).model_copy(update=values)
    return changed(work, "roles", **{section: part})


def test_a_role_is_a_unit_that_depends_on_its_own_settings_and_material(work: Work, fakes: FakeRoles) -> None:
    fakes.add("prompts", uses_ioi=True)
    fakes.add("prose", uses_text=True)
    work = dataclasses.replace(work)
    assert other_units(work, changed_roles(work, "successor", layer_norm="none")) == {
        "weights",
        "product",
        "verification",
    }
    assert other_units(work, changed_roles(work, "thresholds", successor=0.9)) == {"product", "verification"}
    assert other_units(work, changed_roles(work, "attention", longest=7)) == set()
    assert other_units(work, dataclasses.replace(work, text_digest="other")) == {"prose", "verification"}
    ioi = dataclasses.replace(work, digests=work.digests | {"ioi": "other"})
    assert other_units(work, ioi) == {"prompts", "verification"}
    assert other_units(work, dataclasses.replace(work, tokenizer="other")) == {*ROLES, "verification"}
    assert set(ioi.units["ioi"]) == set(ioi.units["letters"]) | {"algorithm"}
    seeded = changed(ioi, "algorithm", seed=1)
    assert {name for name, key in ioi.units["ioi"].items() if seeded.units["ioi"][name] != key} == {"algorithm"}
    del ROLES["prompts"], ROLES["prose"]


def test_a_new_role_measures_only_itself(work: Work, fakes: FakeRoles) -> None:
    work = dataclasses.replace(work, cache=work.cache / "new role")
    analyse(work, report=told)
    before = {path: path.stat().st_mtime_ns for path in work.cache.rglob("*.safetensors")}
    fakes.measured.clear()
    fakes.add("new", needs=("weights",))
    more = dataclasses.replace(work)
    assert not more.is_done
    analyse(more, report=told)
    assert more.is_done
    assert fakes.measured == ["new"]
    assert {path: path.stat().st_mtime_ns for path in before} == before
    added = {path.stem for path in work.cache.rglob("*.safetensors")} - {path.stem for path in before}
    checks = more.units["letters"]["verification"]
    assert added == {more.roles["new"], checks, *more.runs.values()}
    assert list(assemble(more).roles) == ["weights", "product", "new"]
    del ROLES["new"]


def test_a_threshold_measures_only_what_names_it_and_decides_who_holds_a_role(work: Work, fakes: FakeRoles) -> None:
    analyse(work, report=told)
    fakes.measured.clear()
    strict = changed_roles(work, "thresholds", attention=0.7)
    analyse(strict, report=told)
    assert fakes.measured == ["product"]
    assert assemble(strict).holders == {"weights": ((1, 1),), "product": ((1, 1), (1, 0))}
    assert len(assemble(work).holders["weights"]) == 2


def test_what_changes_no_number_changes_no_fingerprint(work: Work) -> None:
    """Where the baselines fall matters, not the rule that put them there; nor do paths."""
    assert other_units(work, changed(work, "baselines", every=7)) == set()
    elsewhere = StudyFolders(work.source.root / "elsewhere")
    moved = dataclasses.replace(work, source=elsewhere, cache=work.cache / "elsewhere")
    assert moved.units == work.units
    assert moved.runs == work.runs


def test_runs_of_other_members_and_steps_have_other_fingerprints(work: Work) -> None:
    """Also where the weights are the same (METHODS 1.5), though nothing is computed twice."""
    later = dataclasses.replace(work, ref=dataclasses.replace(work.ref, step=9))
    twin = dataclasses.replace(work, ref=dataclasses.replace(work.ref, member="small-s1"))
    assert later.units == twin.units == work.units
    assert len({*work.runs.values(), *later.runs.values(), *twin.runs.values()}) == 3


def test_a_checkpoint_that_is_not_the_one_named_is_refused(work: Work) -> None:
    replaced = dataclasses.replace(work, ref=dataclasses.replace(work.ref, weights_digest="another"))
    with pytest.raises(BadCheckpoint, match=r"data/step8 was changed"):
        analyse(replaced, report=told)
    root = work.source.root / "damaged"
    shutil.copytree(work.source.root / work.ref.path, root / work.ref.path)
    file = root / work.ref.path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    damaged = dataclasses.replace(work, source=StudyFolders(root), cache=root / "jobs")
    with pytest.raises(BadCheckpoint, match=r"data/step8/model\.safetensors is cut short"):
        analyse(damaged, report=told)


def test_weights_that_are_not_finite_are_refused_by_name(work: Work) -> None:
    root = work.source.root / "infinite"
    shutil.copytree(work.source.root / work.ref.path, root / work.ref.path)
    file = root / work.ref.path / "model.safetensors"
    tensors = load_file(file)
    next(iter(tensors.values()))[0] = float("nan")
    save_file(tensors, file, {"format": "pt"})
    ref = dataclasses.replace(work.ref, weights_digest=weights_digest(file.parent))
    infinite = dataclasses.replace(work, source=StudyFolders(root), cache=root / "jobs", ref=ref)
    with pytest.raises(BadCheckpoint, match=r"data/step8/model\.safetensors: .* are not finite"):
        analyse(infinite, report=told)
    facts, fine = weights_of(infinite), weights_of(work)
    assert facts is not None
    assert facts.not_finite > 0
    assert fine is not None
    assert fine.not_finite == 0
    assert fine.shape.startswith("2 layers, 3 heads of 8")


def test_a_job_is_locked_by_its_fingerprints(work: Work) -> None:
    job = analysis_job(work)
    assert job.name == "small-s0 step 8"
    assert job.lock == analysis_job(dataclasses.replace(work, source=StudyFolders(Path("/elsewhere")))).lock
    assert job.lock != analysis_job(changed(work, "attribution", steps=7)).lock
