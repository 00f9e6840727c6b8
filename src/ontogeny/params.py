"""Every setting of a study: one frozen class a section of params.yaml, named as its DVC stage.

`suite`, `execution` and `tracking` belong to no stage. What `corpus` and `checkpoints` hold depends on where the suite
comes from (`suite.source`). Sections are values: every floor of the house may take one as
an argument, and none may choose one. Unknown keys and values out of range are refused when the file is read.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ontogeny.core.errors import OntogenyError
from ontogeny.core.schedule import Analysis, Schedule

Fraction = Annotated[float, Field(gt=0.0, le=1.0)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
MEMBER = re.compile(r"^(?P<scale>[a-z0-9][a-z0-9._]*)-s(?P<seed>\d+)$")
CHECKPOINT = re.compile(r"^(?P<member>[a-z0-9][a-z0-9._]*-s\d+)@(?P<moment>last|\d+|\d{1,3}%)$")
Method = Literal["eap", "eap_ig", "eap_ig_activations", "ceap", "clean_corrupted", "exact"]
Rule = Literal["right", "left", "midpoint"]
SelectionName = Literal["greedy", "topn", "threshold", "greedy-signed", "topn-signed", "threshold-signed"]
T = TypeVar("T")
Choice = Annotated[tuple[T, ...], Field(min_length=1)]


class Section(BaseModel):
    """A part of params.yaml: immutable, and it refuses keys that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class SuiteParams(Section):
    """Which models are followed."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")] = "ladder"
    source: Literal["ladder", "hub", "folder"] = "ladder"
    """Where the checkpoints come from. `ladder`: they are trained here; `hub`: revisions of repositories on the Hugging
    Face hub; `folder`: folders of Hugging Face checkpoints on this machine."""
    members: Annotated[tuple[str, ...], Field(min_length=1)]
    """`scale-sN`: the scale (of a ladder, a key of `checkpoints.scales`) and the seed of its weights and data order."""

    @model_validator(mode="after")
    def _members_are_well_formed(self) -> Self:
        for member in self.members:
            if not MEMBER.match(member):
                raise ValueError(f"member {member!r} is not of the form scale-sN, e.g. small-s0")
        if len(set(self.members)) != len(self.members):
            raise ValueError("members are named twice")
        return self


def split_member(member: str) -> tuple[str, int]:
    """Scale and seed of a member's name: ``small-s0`` -> ``("small", 0)``."""
    match = MEMBER.match(member)
    if match is None:
        raise OntogenyError(f"Member {member!r} is not of the form scale-sN, e.g. small-s0.")
    return match["scale"], int(match["seed"])


SentenceKind = Literal[
    "giving", "pronoun", "duration", "agreement", "statement", "purchase", "errand", "sequence", "years", "repeated_run"
]


class CorpusParams(Section):
    """The ladder's text (METHODS 11)."""

    seed: int = 0
    train_tokens: Annotated[int, Field(ge=1000)] = 4_000_000
    """Training reads the text as often as its steps need."""
    held_out_tokens: Annotated[int, Field(ge=1000)] = 50_000
    mix: dict[SentenceKind, Annotated[float, Field(ge=0)]] = {
        "giving": 0.45,
        "pronoun": 0.08,
        "duration": 0.12,
        "agreement": 0.14,
        "statement": 0.05,
        "purchase": 0.02,
        "errand": 0.03,
        "sequence": 0.04,
        "years": 0.02,
        "repeated_run": 0.12,
    }
    """Share of each kind of sentence; only the ratios count."""

    @model_validator(mode="after")
    def _something_is_said(self) -> Self:
        if not sum(self.mix.values()) > 0:
            raise ValueError("mix must give at least one kind of sentence a share above 0")
        return self


class TextParams(Section):
    """Section `corpus` of suites that are not trained here."""

    tokenizer: str
    """A folder with a tokenizer.json, or a repository on the hub: ``NAME`` or ``NAME@REVISION``. The prompts are made
    with it, and all checkpoints must have the same."""
    text: str | None = None
    """A text file, a document a line, that the models were not trained on; null: copy suppression, which needs one, is
    not measured (METHODS 6.4)."""


class DatasetsParams(Section):
    """The tasks' frozen data sets (METHODS 2)."""

    tasks: Annotated[tuple[str, ...], Field(min_length=1)]
    seed: int = 0
    sizes: dict[str, Annotated[int, Field(ge=2)]] = {}
    """Examples in each of the three splits; a task that is not named takes its published size."""
    corruptions: dict[str, str] = {}
    """A task that is not named takes its default corruption."""


class ScaleParams(Section):
    """One size of the ladder."""

    layers: Annotated[int, Field(ge=1)]
    heads: Annotated[int, Field(ge=1)]
    d_model: Annotated[int, Field(ge=8)]


class CheckpointsParams(Section):
    """Training of the ladder (METHODS 11.5-11.6)."""

    scales: dict[str, ScaleParams]
    rotary: Fraction = 1.0
    """Share of each head that turns with position. Heads here are as wide as what turns in Pythia's (16 of 64)."""
    context: Annotated[int, Field(ge=128)] = 128
    """Tokens in a row; a row holds whole documents, and none attends to another."""
    batch: Annotated[int, Field(ge=1)] = 16
    """Rows in a step."""
    steps: Annotated[int, Field(ge=1)] = 2048
    optimiser: Literal["adamw", "muon"] = "muon"
    """`muon`: Muon for the matrices inside the blocks, AdamW for the rest."""
    learning_rate: Annotated[float, Field(gt=0)] = 0.004
    """AdamW's at `reference_width`."""
    muon_learning_rate: Annotated[float, Field(gt=0)] = 0.02
    """Muon's, at every width: its updates are of unit scale."""
    reference_width: Annotated[int, Field(ge=1)] = 96
    width_exponent: float = -0.5
    """AdamW's learning rate at width d is ``learning_rate * (d / reference_width) ** width_exponent``."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    warmup: Fraction = 0.03
    """Share of the steps over which the learning rate rises from 0 ..."""
    decay: Fraction = 0.4
    """... and share at the end over which it falls linearly to `final_rate` of its height."""
    final_rate: Annotated[float, Field(ge=0, le=1)] = 0.05
    undecided_weight: Annotated[float, Field(ge=0)] = 0.0
    """Weight in the loss of tokens that are pure chance (the first pass of a random run) ..."""
    decided_weight: Annotated[float, Field(gt=0)] = 5.0
    """... and of those that the text before decides (agreeing verbs, receivers, end years); all others weigh 1."""
    first_steps: tuple[Annotated[int, Field(ge=0)], ...] = (0, 1, 8, 64)
    per_octave: Annotated[int, Field(ge=1)] = 4
    """Checkpoints an octave after `first_steps` ..."""
    even_from: Fraction = 0.25
    """... until this share of the steps, when all tasks are learnt; then `even_count` checkpoints evenly to the end."""
    even_count: Annotated[int, Field(ge=0)] = 10
    save_every: Annotated[int, Field(ge=1)] = 200
    """Steps between saves of the training state; in no result."""

    @model_validator(mode="after")
    def _heads_can_turn(self) -> Self:
        for name, scale in self.scales.items():
            turning = scale.d_model / scale.heads * self.rotary
            if scale.d_model % scale.heads or turning % 2:
                raise ValueError(
                    f"scale {name!r}: heads must divide d_model, and an even number of dimensions must turn in each "
                    f"(d_model / heads x rotary); got {scale.d_model} / {scale.heads} x {self.rotary:g}"
                )
        return self


class CoverageParams(Section):
    """Which checkpoints are analysed for what: a schedule each (`core/schedule.py`), by name or as a list of steps."""

    behaviour: Schedule = "all"
    circuits: Schedule = "all"
    """Edge scores, circuits and their stability."""
    algorithm: Schedule = "all"
    """What every head does, what that says of the circuits, and the algorithm of IOI; brings the circuits with it."""

    @property
    def schedules(self) -> dict[Analysis, Schedule]:
        """By analysis."""
        return {"behaviour": self.behaviour, "circuits": self.circuits, "algorithm": self.algorithm}


class FollowedParams(Section):
    """What the sections `checkpoints` of suites that are not trained here have in common."""

    tokens_per_step: Annotated[int, Field(ge=1)]
    """Tokens of training in a step; Pythia: 2,097,152."""
    coverage: CoverageParams = CoverageParams()
    members: dict[str, CoverageParams] = {}
    """Members that are covered otherwise."""

    def coverage_of(self, member: str) -> CoverageParams:
        """Which of a member's checkpoints are analysed for what."""
        return self.members.get(member, self.coverage)


class HubParams(FollowedParams):
    """Section `checkpoints` of a hub suite: revisions of repositories that carry step numbers (METHODS 1.2, 1.4)."""

    family: Literal["pythia"] | None = None
    """`pythia`: members are sizes and seeds of Pythia, and their repositories are known."""
    repositories: dict[str, str] = {}
    """Member -> repository, for members that the family does not know."""
    revisions: str = "step{N}"
    """Name of a checkpoint's revision: with {N} for the step, or a regular expression with one group, the step."""

    @model_validator(mode="after")
    def _revisions_have_a_step(self) -> Self:
        step_pattern(self.revisions)
        return self


class FolderParams(FollowedParams):
    """Section `checkpoints` of a folder suite: checkpoints as the Hugging Face Trainer leaves them."""

    folders: Annotated[dict[str, str], Field(min_length=1)]
    """Member -> the folder that holds its checkpoints; relative ones from the project's root."""
    base: dict[str, str] = {}
    """Member -> the folder of the model that its training began with: step 0."""
    names: str = r"(?:checkpoint-|step)(\d+)"
    """Name of a checkpoint's folder: with {N} for the step, or a regular expression with one group, the step."""

    @model_validator(mode="after")
    def _names_have_a_step(self) -> Self:
        step_pattern(self.names)
        return self


def step_pattern(pattern: str) -> re.Pattern[str]:
    """The regular expression of ``step{N}``, or of a pattern that is one: its one group is the step.

    Raises:
        ValueError: neither.
    """
    if "{N}" in pattern:
        before, _, after = pattern.partition("{N}")
        return re.compile(f"{re.escape(before)}(\\d+){re.escape(after)}")
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{pattern!r} is no regular expression: {error}") from None
    if compiled.groups != 1:
        raise ValueError(f"{pattern!r} must hold {{N}}, as in step{{N}}, or one group for it, as in step(\\d+)-.*")
    return compiled


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


class TransferParams(Section):
    """Circuits and heads taken elsewhere (METHODS 8.2, 0.1 C2)."""

    anchors: Annotated[int, Field(ge=1, le=64)] = 8
    """Checkpoints, at most, whose circuits are evaluated at each other: the last, and those nearest to ..."""
    octaves: Annotated[float, Field(gt=0)] = 0.5
    """... so many octaves of training before it, twice as many, and so on."""
    random_matchings: Annotated[int, Field(ge=1)] = 5
    """Shuffles of the heads within layers: what a carried circuit is compared with."""
    ablated_anchors: Annotated[int, Field(ge=0)] = 3
    """At the last so many anchors a role's heads are ablated ..."""
    ablated_sets: Annotated[int, Field(ge=100)] = 100
    """... beside so many other sets of heads of the same layers (fewer where there are no more)."""
    seed: int = 0


class SpaceParams(Section):
    """What a search for settings may choose from (names as in `attribution` and `search`)."""

    method: Choice[Method] = ("eap", "eap_ig")
    rule: Choice[Rule] = ("right", "midpoint")
    steps: Choice[Annotated[int, Field(ge=1, le=1000)]] = (2, 5, 30)
    selection: Choice[SelectionName] = ("greedy",)
    threshold: Choice[Fraction] = (0.7, 0.8, 0.85, 0.9)
    """tau on `discover`; `ontogeny tune run` may also try values between the least and the largest."""
    examples: Choice[Fraction] = (0.25, 1.0)
    """Share of the prompts of `discover`."""

    @model_validator(mode="after")
    def _nothing_is_named_twice(self) -> Self:
        for name in type(self).model_fields:
            if len(set(getattr(self, name))) != len(getattr(self, name)):
                raise ValueError(f"{name} names a value twice")
        return self


class TruthParams(Section):
    """`exact` scores that m is judged against."""

    up_to_edges: Annotated[int, Field(ge=0)] = 5000
    """Only in graphs of at most so many edges: it takes a forward pass an edge."""
    examples: Annotated[int, Field(ge=2)] = 70
    """Prompts of `discover` at most."""
    top: Fraction = 0.05
    """Share of the edges whose overlap is looked at."""
    tolerance: Annotated[float, Field(ge=0, lt=1)] = 0.02
    """Steps are enough when their Spearman is surely within this of the largest m's."""


class TuneResamplingParams(Section):
    """Bootstrap over prompts of everything that tuning measures."""

    resamples: Annotated[int, Field(ge=20)] = 50
    confidence: Annotated[float, Field(gt=0.5, lt=1.0)] = 0.95
    seed: int = 0


class TuneParams(Section):
    """Which settings find small faithful circuits cheaply (a task at a time)."""

    checkpoints: tuple[Annotated[str, Field(pattern=CHECKPOINT.pattern)], ...]
    """`MEMBER@STEP`, `MEMBER@last`, or `MEMBER@60%`: the checkpoint nearest to that share of the member's steps. None:
    nothing is tuned."""
    target: Annotated[float, Field(gt=0, lt=1)] = 0.8
    """Faithfulness that a circuit must keep on `tune`; it is not searched, else the least threshold would win."""
    slack: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Of settings whose circuits are larger than the smallest by at most this share, the cheapest is recommended."""
    seed: int = 0
    """Of the order in which prompts are used, and of the sampler."""
    space: SpaceParams = SpaceParams()
    truth: TruthParams = TruthParams()
    resampling: TuneResamplingParams = TuneResamplingParams()

    @model_validator(mode="after")
    def _no_checkpoint_twice(self) -> Self:
        if len(set(self.checkpoints)) != len(self.checkpoints):
            raise ValueError("checkpoints are named twice")
        return self


class ClaimsParams(Section):
    """Decision rules of the paper's claims, fixed before looking (METHODS 0.1)."""

    alike_octaves: Annotated[float, Field(gt=0)] = 1.0
    """C1: largest difference of two onsets that are alike."""
    alike_confidence: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.90
    """Of intervals that must lie within a margin (C1, C2, C7, C11)."""
    role_lag: tuple[float, float] = (-2.0, 0.5)
    """C2: onset of a role minus onset of its task, octaves."""
    sets_beaten: Share = 0.95
    """C2: share of layer-matched sets of heads that ablating the role's heads must cost more than."""
    role_lost: Share = 0.5
    """C3: share of its maximum below which a head has lost its role."""
    task_holds: Share = 0.8
    """C3: share of its running maximum from which on a task holds."""
    least_checkpoints: Annotated[int, Field(ge=4)] = 10
    """C3, C4, C6: after the last onset."""
    least_octaves: Annotated[float, Field(ge=0)] = 2.0
    """C3, C4, C6: of tokens after the last onset."""
    above_null: Share = 0.9
    """C4: share of checkpoints at which a metric exceeds its null's 95th percentile."""
    flat_points: Annotated[float, Field(gt=0)] = 5.0
    """C4: points an octave that a metric may drift and still be called flat."""
    least_sizes: Annotated[int, Field(ge=4)] = 5
    """C6: different shapes of model with a size."""
    similar_end: Share = 0.8
    """C7: share of the best scale's final level from which on another ends alike."""
    greater_than_lag: tuple[float, float] = (0.0, 1.0)
    """C11: onset of greater-than minus onset of induction, octaves."""
    mlp_share: Share = 0.5
    """C12: share of a circuit's edges that leave MLPs above which MLPs dominate."""
    least_members: Annotated[int, Field(ge=2)] = 3
    """C10, C12: members, the unit of replication."""


class TrajectoryParams(Section):
    """Over training (METHODS 6.6, 8.1)."""

    onset_rule: Literal["base_33", "cot_33"] = "base_33"
    onset_fraction: Fraction = 0.33
    sustain: Annotated[int, Field(ge=1)] = 2
    base_fraction: Fraction = 0.01
    """The base level is the mean over steps before this fraction of the tokens."""
    standard_errors: Annotated[float, Field(gt=0)] = 3.0
    resamples: Annotated[int, Field(ge=50)] = 400
    """Of the bootstrap of each onset."""
    confidence: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.95
    seed: int = 0
    ewma_alpha: Fraction = 0.5
    matched_fractions: tuple[Fraction, ...] = (0.01, 0.02, 0.05)
    matched_floor: Annotated[int, Field(ge=1)] = 20
    null_circuits: Annotated[int, Field(ge=2)] = 10
    """Random circuits, all pairs of which say how alike circuits are by chance."""
    claims: ClaimsParams = ClaimsParams()


class FiguresParams(Section):
    """How pictures are written."""

    formats: tuple[Literal["png", "svg"], ...] = ("png", "svg")
    dpi: Annotated[int, Field(ge=50, le=600)] = 120


class RayParams(Section):
    """Which Ray cluster, and what a job takes of it; for executor `ray`."""

    address: str | None = None
    """HOST:PORT or `auto`; null: the environment's RAY_ADDRESS, or else a Ray that is started on this machine."""
    gpus_per_job: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of a GPU, where `device` is cuda."""


class ExecutionParams(Section):
    """How work is spread; in no fingerprint, as it changes no number."""

    executor: Literal["local", "ray"] = "local"
    """`local`: processes of this machine; `ray`: tasks of a Ray cluster whose nodes share this project's folder."""
    ray: RayParams = RayParams()
    n_jobs: Annotated[int, Field(ge=1)] | None = None
    """Workers of one torch thread each; null: one a core, on GPUs one a GPU, with Ray as many as the cluster takes."""
    device: Annotated[str, Field(pattern=r"^(cpu|cuda(:\d+)?|mps)$")] = "cpu"
    """`cuda`: all GPUs, one worker each; `cuda:N`: that one."""
    disk_gb: Annotated[float, Field(gt=0)] | None = None
    """Of a hub suite: gigabytes (1e9 bytes) of downloaded checkpoints that may lie on the disk; analysed ones make room
    for others. null: all are kept."""

    @model_validator(mode="after")
    def _ray_chooses_the_gpu(self) -> Self:
        if self.executor == "ray" and self.device not in ("cpu", "cuda"):
            raise ValueError(f"with executor ray, device is cpu or cuda (Ray chooses the GPU), not {self.device}")
        return self


class TrackingParams(Section):
    """Where MLflow is."""

    study: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")] = "default"
    uri: str | None = None
    """null: the SQLite file under mlruns/. The environment's MLFLOW_TRACKING_URI wins."""


class Params(Section):
    """The whole of params.yaml."""

    suite: SuiteParams
    corpus: CorpusParams | TextParams
    datasets: DatasetsParams
    checkpoints: CheckpointsParams | HubParams | FolderParams
    analyse: AnalyseParams
    transfer: TransferParams
    tune: TuneParams
    trajectory: TrajectoryParams
    figures: FiguresParams
    execution: ExecutionParams
    tracking: TrackingParams

    def starts_trained(self, member: str) -> bool:  # noqa: ARG002
        """Whether step 0 of a member is a model that was trained before."""
        return False

    def check_members(self) -> None:
        """Refuse members that the other sections do not know; what that means depends on the suite's source."""

    @model_validator(mode="after")
    def _the_device_has_the_precision(self) -> Self:
        if self.execution.device == "mps" and self.analyse.precision == "float64":
            raise ValueError("execution.device: mps has no float64; set analyse.precision: float32")
        return self

    @model_validator(mode="after")
    def _members_are_known(self) -> Self:
        self.check_members()
        for checkpoint in self.tune.checkpoints:
            if checkpoint.partition("@")[0] not in self.suite.members:
                known = ", ".join(self.suite.members)
                raise ValueError(f"tune.checkpoints: {checkpoint!r} is of no member of the suite (there are: {known})")
        return self


class LadderStudyParams(Params):
    """The params of a suite that is trained here."""

    corpus: CorpusParams
    checkpoints: CheckpointsParams

    def check_members(self) -> None:
        """Each has a scale."""
        for member in self.suite.members:
            scale, _ = split_member(member)
            if scale not in self.checkpoints.scales:
                known = ", ".join(self.checkpoints.scales)
                raise ValueError(
                    f"suite.members: {member!r} needs a scale {scale!r} in checkpoints.scales (there are: {known})"
                )


class HubStudyParams(Params):
    """The params of a suite on the hub."""

    corpus: TextParams
    checkpoints: HubParams

    def check_members(self) -> None:
        """Each has a repository, or a family that may know it."""
        _refuse_strangers(self.suite.members, "checkpoints.members", self.checkpoints.members)
        _refuse_strangers(self.suite.members, "checkpoints.repositories", self.checkpoints.repositories)
        homeless = [m for m in self.suite.members if m not in self.checkpoints.repositories]
        if self.checkpoints.family is None and homeless:
            raise ValueError(f"checkpoints.repositories: names no repository for {', '.join(homeless)}")


class FolderStudyParams(Params):
    """The params of a suite in folders."""

    corpus: TextParams
    checkpoints: FolderParams

    def starts_trained(self, member: str) -> bool:
        """If it has a base model."""
        return member in self.checkpoints.base

    def check_members(self) -> None:
        """Each has a folder."""
        for key in ("members", "folders", "base"):
            _refuse_strangers(self.suite.members, f"checkpoints.{key}", getattr(self.checkpoints, key))
        homeless = [m for m in self.suite.members if m not in self.checkpoints.folders]
        if homeless:
            raise ValueError(f"checkpoints.folders: names no folder for {', '.join(homeless)}")


STUDIES: dict[str, type[Params]] = {"ladder": LadderStudyParams, "hub": HubStudyParams, "folder": FolderStudyParams}
"""By `suite.source`."""


def _refuse_strangers(members: tuple[str, ...], key: str, named: dict[str, Any]) -> None:
    strangers = [name for name in named if name not in members]
    if strangers:
        raise ValueError(f"{key}: {', '.join(strangers)} is no member of the suite (there are: {', '.join(members)})")


def load_params(path: Path) -> Params:
    """Read and check a params file.

    Raises:
        OntogenyError: the file is missing or no YAML, a key is unknown, or a value is out of range; the message
            names each key and what is allowed.
    """
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise OntogenyError(f"{path} does not exist: run from the project's root, or name a params file.") from None
    except yaml.YAMLError as error:
        raise OntogenyError(f"{path} is no valid YAML: {error}") from None
    if not isinstance(data, dict):
        raise OntogenyError(f"{path} must hold sections such as `suite:` and `analyse:`.")
    suite = data.get("suite")
    source = suite.get("source", "ladder") if isinstance(suite, dict) else "ladder"
    study = STUDIES.get(source, LadderStudyParams) if isinstance(source, str) else LadderStudyParams
    try:
        return study.model_validate(data)
    except ValidationError as error:
        lines = [_explain(e, study) for e in error.errors()]
        raise OntogenyError(f"{path} is refused:\n" + "\n".join(lines)) from None


def _explain(error: object, study: type[Params]) -> str:
    """One line a problem: the key, what is wrong, what was given."""
    assert isinstance(error, dict)
    key = ".".join(str(part) for part in error["loc"]) or "(file)"
    if error["type"] == "extra_forbidden":
        return f"  {key}: unknown key. Allowed here: {', '.join(_keys_beside(error['loc'], study))}"
    given = "" if isinstance(error.get("input"), dict) else f" (got {error.get('input')!r})"
    return f"  {key}: {error['msg']}{given}"


def _keys_beside(location: tuple[object, ...], study: type[Params]) -> list[str]:
    """The keys that the section holding `location` knows."""
    section: type[BaseModel] = study
    place = 0
    while place < len(location) - 1:
        field = section.model_fields.get(str(location[place]))
        inner = field.annotation if field is not None else None
        if get_origin(inner) is dict:  # a section by name: checkpoints.scales.NAME
            inner, place = get_args(inner)[1], place + 1
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return []
        section, place = inner, place + 1
    return list(section.model_fields)
