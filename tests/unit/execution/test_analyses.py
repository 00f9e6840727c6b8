"""A checkpoint's job: what is computed again after which change, and that nothing else is."""

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from ontogeny.analysis import ANALYSES, analyse_checkpoint
from ontogeny.core.errors import BadCheckpoint
from ontogeny.core.pairs import SPLITS, PromptPair, TaskDataset
from ontogeny.core.results import CheckpointRef
from ontogeny.execution.analyses import Work, analyse, analysis_job, assemble, examination_of, versions
from ontogeny.models.checkpoints import weights_digest
from ontogeny.models.subject import load_subject
from ontogeny.params import AnalyseParams, BehaviourParams
from ontogeny.records.datasets import write_dataset
from ontogeny.tasks.tokenizer import train_tokenizer
from support.engine import neox_model

WORDS = "abcdefghijklmnop"


def told(share: float, note: str = "") -> None:
    assert 0 <= share <= 1
    assert note == "letters"


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
        root=root,
        datasets={"letters": root / "letters"},
        digests={"letters": dataset.digest},
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
    a, b = work.units["letters"], other.units["letters"]
    return {name for name in a if a[name] != b[name]}


def test_the_parts_are_those_of_the_whole_analysis(work: Work) -> None:
    """Through the cache comes what `analyse_checkpoint` returns directly."""
    from ontogeny.records.datasets import read_dataset

    assert not work.is_done
    analyse(work, report=told)
    assert work.is_done
    found = assemble(work)
    subject = load_subject(work.root / work.ref.path)
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
    assert examination_of(work).step == 8
    assert set(examination_of(work).blind) == {"letters"}


def test_a_second_time_nothing_is_computed(work: Work) -> None:
    analyse(work, report=told)
    times = {path: path.stat().st_mtime_ns for path in work.cache.rglob("*.safetensors")}
    assert len(times) == len(ANALYSES) + 3
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
    assert other_units(work, changed(work, "baselines", seed=1)) == {"circuit"}
    assert other_units(work, changed(work, "search", threshold=0.5)) == {"circuit"}
    assert other_units(work, changed(work, "attribution", steps=7)) == {"scores", "circuit"}
    assert other_units(work, changed(work, "behaviour", seed=1)) == {"behaviour", "scores", "circuit"}
    assert other_units(work, dataclasses.replace(work, baselines=True)) == {"circuit"}
    precise = dataclasses.replace(work, settings=work.settings.model_copy(update={"precision": "float64"}))
    assert other_units(work, precise) == set(versions()) - {"training", "examination"}
    assert other_units(work, dataclasses.replace(work, device="cuda")) == {"behaviour", "scores", "circuit"}


def test_what_changes_no_number_changes_no_fingerprint(work: Work) -> None:
    """Where the baselines fall matters, not the rule that put them there; nor do paths."""
    assert other_units(work, changed(work, "baselines", every=7)) == set()
    moved = dataclasses.replace(work, root=work.root / "elsewhere", cache=work.cache / "elsewhere")
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
    root = work.root / "damaged"
    shutil.copytree(work.root / work.ref.path, root / work.ref.path)
    file = root / work.ref.path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    damaged = dataclasses.replace(work, root=root, cache=root / "jobs")
    with pytest.raises(BadCheckpoint, match=r"data/step8/model\.safetensors is cut short"):
        analyse(damaged, report=told)


def test_weights_that_are_not_finite_are_refused_by_name(work: Work) -> None:
    root = work.root / "infinite"
    shutil.copytree(work.root / work.ref.path, root / work.ref.path)
    file = root / work.ref.path / "model.safetensors"
    tensors = load_file(file)
    next(iter(tensors.values()))[0] = float("nan")
    save_file(tensors, file, {"format": "pt"})
    ref = dataclasses.replace(work.ref, weights_digest=weights_digest(file.parent))
    with pytest.raises(BadCheckpoint, match=r"data/step8/model\.safetensors: .* are not finite"):
        analyse(dataclasses.replace(work, root=root, cache=root / "jobs", ref=ref), report=told)


def test_a_job_is_locked_by_its_fingerprints(work: Work) -> None:
    job = analysis_job(work)
    assert job.name == "small-s0 step 8"
    assert job.lock == analysis_job(dataclasses.replace(work, root=Path("/elsewhere"))).lock
    assert job.lock != analysis_job(changed(work, "attribution", steps=7)).lock
