"""A target's work: which change of what is carried, ablated or set computes what again."""

import dataclasses
from pathlib import Path

import pytest
import torch

from ontogeny.core.circuit import Circuit
from ontogeny.core.graph import GraphSpec
from ontogeny.execution.analyses import Work
from ontogeny.execution.transfers import TransferWork, on_tune, transfer_job, tune_prompts
from ontogeny.models.checkpoints import StudyFolders
from ontogeny.params import TransferParams
from ontogeny.records.datasets import read_dataset, write_dataset
from ontogeny.stages.analyse import works_of
from ontogeny.stages.study import Study
from ontogeny.transfer import CarriedCircuit
from support.letters_study import STEPS, TASK, letters_study

GRAPH = GraphSpec(2, 3)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return letters_study(tmp_path_factory.mktemp("letters") / "study")


def at(study: Study, member: str = "small-s0", step: int = 32) -> Work:
    return works_of(study, member)[STEPS.index(step)]


def circuit(*edges: str) -> Circuit:
    mask = torch.zeros_like(GRAPH.real_edges)
    for name in edges:
        mask[GRAPH.edge_index(name)] = True
    return Circuit(GRAPH, mask)


@pytest.fixture
def work(study: Study) -> TransferWork:
    own, other = circuit("input->m0", "m0->logits"), circuit("input->logits")
    return TransferWork(
        at=at(study),
        own={TASK: own},
        sources={TASK: (CarriedCircuit("small-s0", 16, other), CarriedCircuit("small-s0", 32, own))},
        mates={"small-s1": at(study, "small-s1")},
        from_mates={TASK: (CarriedCircuit("small-s1", 32, other),)},
        holders={TASK: {"induction": ((0, 1),)}},
        settings=TransferParams(),
    )


def again(work: TransferWork, **changes: object) -> set[str]:
    """Units that another work would compute, though `work` is done."""
    other = dataclasses.replace(work, **changes)  # type: ignore[arg-type]
    units = {name for name, key in other.units[TASK].items() if work.units[TASK].get(name) != key}
    return units | ({"matching"} if other.mates and other.matching != work.matching else set())


def test_each_unit_depends_on_what_it_takes(work: TransferWork) -> None:
    assert set(work.units[TASK]) == {"carried", "seeds", "ablations"}
    assert again(work) == set()
    less = {TASK: work.sources[TASK][:1]}
    assert again(work, sources=less) == {"carried"}
    assert again(work, from_mates={TASK: (CarriedCircuit("small-s1", 32, circuit("input->m1", "m1->logits")),)}) == {
        "seeds"
    }
    assert again(work, holders={TASK: {"induction": ((0, 2),)}}) == {"ablations"}
    settings = work.settings.model_copy
    assert again(work, settings=settings(update={"random_matchings": 6})) == {"carried", "seeds"}
    assert again(work, settings=settings(update={"ablated_sets": 120})) == {"ablations"}
    assert again(work, settings=settings(update={"anchors": 3, "octaves": 2.0})) == set(), "the schedule is no number"
    assert again(work, mates={"small-s1": at_step(work, 16)}) == {"seeds", "matching"}


def at_step(work: TransferWork, step: int) -> Work:
    ref = dataclasses.replace(work.mates["small-s1"].ref, step=step, weights_digest="another")
    return dataclasses.replace(work.mates["small-s1"], ref=ref)


def test_what_changes_no_number_changes_no_fingerprint(work: TransferWork) -> None:
    moved = dataclasses.replace(work.at, source=StudyFolders(Path("/elsewhere")), baselines=not work.at.baselines)
    assert again(work, at=moved) == set()
    precise = dataclasses.replace(work.at, settings=work.at.settings.model_copy(update={"precision": "float64"}))
    assert again(work, at=precise) == {"carried", "seeds", "ablations", "matching"}


def test_units_without_anything_to_do_are_not_there(work: TransferWork) -> None:
    alone = dataclasses.replace(work, mates={}, from_mates={TASK: ()}, holders={})
    assert set(alone.units[TASK]) == {"carried"}
    nothing = dataclasses.replace(alone, sources={TASK: ()})
    assert nothing.units[TASK] == {}
    assert nothing.is_done
    assert not work.is_done


def test_a_job_is_named_and_locked_by_its_work(work: TransferWork) -> None:
    assert transfer_job(work).name == "small-s0 step 32"
    other = dataclasses.replace(work, holders={})
    assert transfer_job(work).lock != transfer_job(other).lock


def test_role_vectors_are_measured_on_the_prompts_of_tune(study: Study, tmp_path: Path) -> None:
    """Roles that look at no prompts keep their fingerprints: they are not measured twice."""
    plain = at(study)
    dataset = dataclasses.replace(read_dataset(study.dataset(TASK)), task="ioi")
    write_dataset(tmp_path / "ioi", dataset)
    with_ioi = dataclasses.replace(plain, datasets={"ioi": tmp_path / "ioi"}, digests={"ioi": dataset.digest})
    prompts = tune_prompts(with_ioi)
    assert prompts is not None
    assert prompts.splits["discover"] == dataset.splits["tune"] != dataset.splits["discover"]
    twin = on_tune(with_ioi)
    changed = {name for name, key in twin.roles.items() if with_ioi.roles[name] != key}
    assert changed == {"name_mover", "negative_name_mover", "s_inhibition"}
    assert tune_prompts(plain) is None
    assert on_tune(plain).digests == {}
