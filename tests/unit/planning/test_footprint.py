"""Memory and disk, against arithmetic on paper; shapes of Pythia, against what is published."""

import pytest

from ontogeny.models.forward import bytes_of_run
from ontogeny.models.memory import BUDGET
from ontogeny.models.neox import neox_config
from ontogeny.models.outline import Outline, outline_of
from ontogeny.params import AnalyseParams, ScaleParams
from ontogeny.planning.footprint import (
    HEAD,
    INTERPRETER,
    PICTURES,
    RECORD,
    Memory,
    record_bytes,
    shared_memory,
    worker_memory,
    working_memory,
)


def pythia(layers: int, heads: int, d_model: int, vocabulary: int = 50304) -> Outline:
    shape = ScaleParams(layers=layers, heads=heads, d_model=d_model)
    return outline_of(neox_config(shape, 2048, vocabulary, 0.25).to_json())


@pytest.mark.parametrize(
    ("shape", "edges", "parameters"),
    [
        ((6, 8, 512), 3_580, 70_426_624),
        ((12, 12, 768), 32_347, 162_322_944),
        ((24, 16, 1024), 231_493, 405_334_016),
        ((32, 32, 2560), 1_591_857, 2_775_208_960),
    ],
)
def test_shapes_of_pythia_have_the_published_edges_and_parameters(
    shape: tuple[int, int, int], edges: int, parameters: int
) -> None:
    """Edges: METHODS 3.2. Parameters: the suite's paper."""
    outline = pythia(*shape)
    assert outline.architecture.graph.n_edges == edges
    assert outline.parameters == parameters


def test_a_model_that_is_tied_counts_its_embedding_once() -> None:
    from transformers import GPT2Config

    assert outline_of(GPT2Config().to_dict()).parameters == 124_439_808
    assert outline_of(GPT2Config().to_dict()).architecture.graph.n_edges == 32_491


def test_evaluating_circuits_holds_what_all_writers_write_one_and_a_half_times() -> None:
    """160m, 200 pairs: 157 writers of 768 numbers at 16 tokens. Attribution is within its budget and below that."""
    architecture = pythia(12, 12, 768).architecture
    assert working_memory(architecture, 200, AnalyseParams()) == int(1.5 * 200 * 16 * 157 * 768 * 4)


def test_small_models_take_the_least_that_attribution_does_not_divide() -> None:
    """One layer, one head: 3 writers, 5 readers; 50 resamples of their scores in float64."""
    architecture = pythia(1, 1, 16, 100).architecture
    assert working_memory(architecture, 10, AnalyseParams()) == 2**26 + 50 * 3 * 5 * 8


def test_what_loading_holds_goes_before_work_begins() -> None:
    outline = pythia(12, 12, 768)
    weights, working = 4 * outline.parameters, int(1.5 * 1000 * 16 * 157 * 768 * 4)
    assert worker_memory(outline, 1000, AnalyseParams(), accelerator=False) == Memory(
        INTERPRETER + int(1.15 * (weights + working)), 0
    )
    assert worker_memory(outline, 1000, AnalyseParams(), accelerator=True) == Memory(
        INTERPRETER + weights, int(1.15 * (weights + working))
    )
    few = worker_memory(outline, 1, AnalyseParams(), accelerator=True)
    assert few == Memory(INTERPRETER + weights, int(1.15 * (1.25 * weights)))
    double = worker_memory(outline, 1000, AnalyseParams(precision="float64"), accelerator=False)
    assert double.host - INTERPRETER == int(1.15 * 2 * (weights + working))


def test_behaviour_alone_holds_one_budget_of_runs() -> None:
    """12b: a prompt's run is 36 blocks of 16 tokens and 20 x 5120 numbers, four of them a budget; loading is more."""
    large, small = pythia(36, 40, 5120), pythia(1, 1, 16, 100)
    weights = 4 * large.parameters
    assert BUDGET // bytes_of_run(large.architecture, 16, 4) == BUDGET // (36 * 16 * 20 * 5120 * 4) == 4
    assert worker_memory(large, 200, AnalyseParams(), accelerator=True, circuits=False) == Memory(
        INTERPRETER + weights, int(1.15 * (1.25 * weights))
    )
    run = 16 * 20 * 16 * 4
    assert worker_memory(small, 10, AnalyseParams(), accelerator=False, circuits=False).host == INTERPRETER + int(
        1.15 * (4 * small.parameters + 10 * run)
    )


def test_the_largest_models_meet() -> None:
    each = [Memory(10, 1), Memory(30, 3), Memory(20, 2)]
    assert shared_memory(1, each) == Memory(30, 3)
    assert shared_memory(2, each) == Memory(50, 3)
    assert shared_memory(9, each) == Memory(60, 3)


def test_records_are_kept_three_times_and_pictures_once() -> None:
    architecture = pythia(2, 2, 16, 100).architecture
    scores = 4 * architecture.graph.n_writers * architecture.graph.n_readers
    assert record_bytes(architecture, 4, ("behaviour",)) == 3 * 4 * RECORD
    assert record_bytes(architecture, 4, ("behaviour", "circuits")) == 3 * 4 * (RECORD + 2 * scores) + 4 * PICTURES
    everything = record_bytes(architecture, 4, ("behaviour", "circuits", "algorithm"))
    assert everything == 3 * (4 * (RECORD + 2 * scores) + 4 * HEAD) + 4 * PICTURES
