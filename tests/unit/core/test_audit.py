"""Bad uploads are found, each by what it is."""

from dataclasses import replace

from ontogeny.core.audit import Finding, WeightsFacts, audit, duplicates
from ontogeny.core.results import CheckpointRef

FINE = WeightsFacts("6 layers", 0)


def ref(step: int, weights: str, config: str = "c") -> CheckpointRef:
    return CheckpointRef("pythia", "70m-s0", "70m", 0, step, step, f"x@step{step}", weights, config_digest=config)


def test_nothing_is_found_where_nothing_is_wrong() -> None:
    refs = [ref(step, f"w{step}") for step in (0, 1, 2)]
    assert audit(refs, dict.fromkeys((0, 1, 2), FINE)) == ()


def test_each_fault_has_its_name() -> None:
    refs = [ref(0, "a"), ref(1, "a"), ref(2, "b"), ref(4, "c", "other"), ref(8, "b"), ref(16, "d"), ref(32, "e")]
    facts = {0: FINE, 1: FINE, 2: FINE, 4: FINE, 8: FINE, 16: WeightsFacts("", 12_345), 32: WeightsFacts("7 layers", 0)}
    found = audit(refs, facts)
    assert [(f.step, f.fault) for f in found] == [
        (1, "untrained"), (4, "config"), (8, "duplicate"), (16, "not_finite"), (32, "shape"),
    ]  # fmt: skip
    assert found[2] == Finding(8, "duplicate", "Its weights are those of step 2.")
    assert "12,345" in found[3].detail
    assert found[4].detail == "7 layers where most have 6 layers."


def test_the_earliest_of_equals_is_the_original() -> None:
    refs = [ref(4, "a"), ref(1, "a"), ref(2, "a")]
    assert duplicates(refs) == {2: 1, 4: 1}


def test_what_could_not_be_loaded_is_judged_by_its_listing_alone() -> None:
    refs = [ref(0, "a"), replace(ref(8, "b"), config_digest="d"), ref(16, "a")]
    assert [(f.step, f.fault) for f in audit(refs, {})] == [(8, "config"), (16, "duplicate")]
