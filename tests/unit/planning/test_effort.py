"""Passes of a checkpoint, against arithmetic on paper and against what the search really looks at."""

import math

import pytest
import torch

from ontogeny.core.circuit import EdgeScores, rank_edges
from ontogeny.core.faithfulness import Ends, Sizes, search_sizes
from ontogeny.core.graph import GraphSpec
from ontogeny.models.neox import neox_config
from ontogeny.models.outline import outline_of
from ontogeny.params import (
    AnalyseParams,
    ScaleParams,
    SearchParams,
    SpaceParams,
    TransferParams,
    TruthParams,
    TuneParams,
)
from ontogeny.planning.effort import (
    Effort,
    checkpoint_effort,
    circuits_searched,
    flops_per_token,
    transfer_effort,
    tuning_effort,
)

ARCHITECTURE = outline_of(
    neox_config(ScaleParams(layers=2, heads=2, d_model=16), 128, 100, 0.25).to_json()
).architecture
EDGES = ARCHITECTURE.graph.n_edges


def effort(*analyses: str, settings: AnalyseParams | None = None, baselines: bool = False, text: bool = True) -> Effort:
    chosen = settings or AnalyseParams()
    return checkpoint_effort(
        ARCHITECTURE,
        {"ioi": 10, "sva": 20},
        chosen,
        analyses,  # type: ignore[arg-type]
        baselines=baselines,
        text=text,
    )


def test_behaviour_is_clean_and_corrupted_prompts_of_three_splits() -> None:
    assert effort("behaviour") == Effort(forward=2 * 3 * 30)


def test_circuits_take_two_scorings_the_search_the_curve_and_random_circuits() -> None:
    """EAP-IG, m = 5, rule right: corrupted, clean (a point of the path too) and four others, five backward passes."""
    searched = math.ceil(0.15 * EDGES)
    found = effort("behaviour", "circuits")
    assert found.forward == 2 * 3 * 30 + 30 * (2 * (6 + 5) + 4)
    assert found.circuits == 30 * (searched + 10 + 20 + 1)
    with_baselines = effort("behaviour", "circuits", baselines=True)
    assert with_baselines.circuits - found.circuits == 30 * 3 * (1 + 20)
    once = AnalyseParams.model_validate({"stability": {"enabled": False}})
    assert found.forward - effort("behaviour", "circuits", settings=once).forward == 30 * 11


def test_roles_are_passes_of_their_tokens_and_the_divergences_of_every_head() -> None:
    """50 sequences of twice half the context; the text of copy suppression is run three times."""
    without, found = effort("behaviour"), effort("behaviour", "algorithm")
    assert found.forward - without.forward == 100 * 10 + math.ceil((50 * 128 + 3 * 2000) / 16)
    assert found.extra == 2000 * 100 * 4 * (2 * 8 + 30)
    assert effort("behaviour", "algorithm", text=False).extra == 0


def test_operations_are_two_a_weight_of_the_blocks() -> None:
    assert flops_per_token(ARCHITECTURE) == 2 * 2 * (4 * 16 * 16 + 2 * 16 * 64)


def test_efforts_add_up() -> None:
    assert Effort(1, 2, 3.0) + Effort(10, 20, 30.0) == Effort(11, 22, 33.0)
    assert Effort(1, 2, 3.0).times(4) == Effort(4, 8, 12.0)
    assert Effort(1, 2, 3.0).passes == 3


@pytest.mark.parametrize("graph", [GraphSpec(6, 8, True), GraphSpec(4, 4, True), GraphSpec(3, 2, False)])
@pytest.mark.parametrize("range_", ["full", "paper"])
def test_a_bisection_looks_at_no_more_circuits_than_planned(graph: GraphSpec, range_: str) -> None:
    """Faithfulness that rises with size reaches the threshold anywhere, or never."""
    search = SearchParams.model_validate({"scan_up_to": 1, "range": range_})
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(graph.n_writers, graph.n_readers, generator=generator) * graph.real_edges
    ranking = rank_edges(EdgeScores(graph, values, "random"), "greedy")
    most = 0
    for share in (0.0, 0.001, 0.01, 0.04, 0.2, 0.7, 1.1):
        sizes = Sizes(ranking, lambda c, s=share: torch.tensor([c.n_edges / graph.n_edges - s + 0.8]), Ends(1.0, 0.0))  # type: ignore[misc]
        search_sizes(sizes, search)
        most = max(most, len(sizes.values))
    assert 0 < most <= circuits_searched(graph, search)
    if range_ == "full":
        assert most >= 0.3 * circuits_searched(graph, search)


def test_circuits_are_carried_between_all_anchors_and_from_other_seeds_and_role_heads_are_ablated() -> None:
    """Three anchors, one mate, two shuffles: at each anchor 3 circuits as they are and twice shuffled, and the
    mate's one unmatched, matched, and twice shuffled. Greater-than has two roles, SVA none: each beside 100 sets.
    """
    settings = TransferParams(random_matchings=2, ablated_anchors=1, ablated_sets=100)
    carried = 3 * (3 * 3 + 4)
    found = transfer_effort({"greater_than": 10, "sva": 7}, 3, 1, settings)
    assert found.circuits == 10 * (carried + 2 * 101) + 7 * carried
    assert found.forward == 2 * 3 * 17


def test_tuning_scores_with_every_setting_and_compares_with_exact() -> None:
    """eap: 2 + 1 passes; eap_ig of 2 steps: right 3 + 2, midpoint 4 + 2; exact: a pass an edge, and 3."""
    tune = TuneParams(
        checkpoints=("a-s0@last",),
        space=SpaceParams(
            method=("eap", "eap_ig"), rule=("right", "midpoint"), steps=(2,), threshold=(0.8,), examples=(1.0,)
        ),
        truth=TruthParams(examples=4),
    )
    found = tuning_effort(ARCHITECTURE.graph, {"ioi": 10}, AnalyseParams(), tune)
    assert found.forward == 10 * (3 + 5 + 6) + 4 * (EDGES + 3)
    assert found.circuits == 10 * 3 * (math.ceil(0.15 * EDGES) + 1)
