"""Section `analyse`: how one checkpoint is analysed."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ontogeny.params.section import Fraction, Section

Method = Literal["eap", "eap_ig", "eap_ig_activations", "ceap", "clean_corrupted", "exact"]
Rule = Literal["right", "left", "midpoint"]
SelectionName = Literal["greedy", "topn", "threshold", "greedy-signed", "topn-signed", "threshold-signed"]


class BehaviourParams(Section):
    """Bootstrap over examples of a checkpoint's behaviour (METHODS 2.5)."""

    resamples: Annotated[int, Field(ge=100)] = 1000
    confidence: Annotated[float, Field(gt=0.5, lt=1.0)] = 0.95
    seed: int = 0


class AttributionParams(Section):
    """How edges are scored (METHODS 3.4)."""

    method: Method = "eap_ig"
    steps: Annotated[int, Field(ge=1, le=1000)] = 5
    """m: points of each path of `eap_ig`, `eap_ig_activations` and `ceap`; the other methods do not use it."""
    rule: Rule = "right"


class SearchParams(Section):
    """The search for the smallest faithful circuit (METHODS 4)."""

    selection: SelectionName = "greedy"
    """A rule alone ranks by |score|; `-signed` by the score itself, harmful edges last."""
    threshold: Fraction = 0.8
    faithfulness: Literal["raw", "normalised"] = "raw"
    range: Literal["full", "paper"] = "full"
    """`full` searches n in [1, E]; `paper` n in [1, 5 % of E], where failure is censored."""
    ablation: Literal["patch", "zero", "mean"] = "patch"
    sustain: Annotated[int, Field(ge=1)] = 5
    scan_up_to: Annotated[int, Field(ge=1)] = 5000
    """Graphs with at most this many edges are scanned at every n; larger ones are bisected."""
    fractions: tuple[Fraction, ...] = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


class BaselineParams(Section):
    """What a circuit is compared with (METHODS 4.5, 5.4)."""

    random_draws: Annotated[int, Field(ge=20)] = 20
    fractions: tuple[Fraction, ...] = (0.01, 0.02, 0.05)
    """Random circuits and complements of these kept sizes ..."""
    every: Annotated[int, Field(ge=1)] = 4
    """... at every n-th checkpoint and the last."""
    seed: int = 0


class AttentionParams(Section):
    """Attention roles: random tokens, a run of which is repeated once (METHODS 6.1)."""

    sequences: Annotated[int, Field(ge=2)] = 50
    longest: Annotated[int, Field(ge=2)] = 100
    """Tokens of the run at most; half the context where that is shorter."""
    seed: int = 0


class SuccessorParams(Section):
    """Successor heads, from weights alone (METHODS 6.2)."""

    layer_norm: Literal["real", "none"] = "real"
    """`none`: the paper's code's shortcut (option `cot`)."""


class CopyingParams(Section):
    """Copy score and its negative (METHODS 6.3)."""

    top: Annotated[int, Field(ge=1)] = 5
    layer_norm: Literal["real", "none"] = "real"


class CopySuppressionParams(Section):
    """Causal scrubbing of copy suppression on held-out text (METHODS 6.4)."""

    tokens: Annotated[int, Field(ge=100)] = 2000
    """Tokens of text that are scored; as many again make the mean."""
    attended: Fraction = 0.05
    """Share of the distinct tokens so far that the query-key part keeps."""
    seed: int = 0


class ThresholdParams(Section):
    """From which score on a head holds a role (METHODS 6)."""

    attention: Fraction = 0.3
    """Induction, previous token, duplicate token: mean attention."""
    successor: Fraction = 0.4
    copying: Annotated[float, Field(ge=0, le=100)] = 10.0
    """Per cent of names in the top tokens ..."""
    copying_times_chance: Annotated[float, Field(ge=1)] = 3.0
    """... and so many times the chance rate."""
    copy_suppression: Annotated[float, Field(ge=0, lt=1)] = 0.10


class RolesParams(Section):
    """What every head does (METHODS 6)."""

    attention: AttentionParams = AttentionParams()
    successor: SuccessorParams = SuccessorParams()
    copying: CopyingParams = CopyingParams()
    copy_suppression: CopySuppressionParams = CopySuppressionParams()
    thresholds: ThresholdParams = ThresholdParams()


class AlgorithmParams(Section):
    """Path patching and what is read off it (METHODS 7, 8.5)."""

    effect: Annotated[float, Field(le=0)] = -0.001
    """A head belongs to the set of `queries` or `values` only if its effect is below this."""
    direct_set: Literal["paper", "cot"] = "paper"
    """Set of `direct`; `cot`: the paper's code's, with negative name movers, and copy suppression where e < -0.01."""
    null_draws: Annotated[int, Field(ge=100)] = 1000
    leading_heads: Annotated[int, Field(ge=1)] = 3
    """Heads of a role that are ablated together, at most, when self-repair is measured."""
    seed: int = 0


class StabilityParams(Section):
    """How far a circuit hangs on its examples: bootstrap inside the job (METHODS 8.3)."""

    enabled: bool = True
    resamples: Annotated[int, Field(ge=2)] = 50
    confidence: Annotated[float, Field(gt=0.5, lt=1.0)] = 0.95
    seed: int = 0
    matched_fractions: tuple[Fraction, ...] = (0.01, 0.02, 0.05)
    """Shares of the edges that resamples' circuits are grown to as well: as `trajectory.matched_fractions`, whose null
    they are."""
    matched_floor: Annotated[int, Field(ge=1)] = 20


class AnalyseParams(Section):
    """One checkpoint, all tasks."""

    precision: Literal["float32", "float64"] = "float32"
    behaviour: BehaviourParams = BehaviourParams()
    attribution: AttributionParams = AttributionParams()
    search: SearchParams = SearchParams()
    baselines: BaselineParams = BaselineParams()
    stability: StabilityParams = StabilityParams()
    roles: RolesParams = RolesParams()
    algorithm: AlgorithmParams = AlgorithmParams()
