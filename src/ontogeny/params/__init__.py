"""Every setting of a study: one frozen class a section of params.yaml, named as its DVC stage.

`suite`, `execution` and `tracking` belong to no stage. What `corpus` and `checkpoints` hold depends on where the suite
comes from (`suite.source`). Sections are values: every floor of the house may take one as
an argument, and none may choose one. Unknown keys and values out of range are refused when the file is read.
"""

from ontogeny.params.analyse import (
    AlgorithmParams,
    AnalyseParams,
    AttentionParams,
    AttributionParams,
    BaselineParams,
    BehaviourParams,
    CopyingParams,
    CopySuppressionParams,
    Method,
    RolesParams,
    Rule,
    SearchParams,
    SelectionName,
    StabilityParams,
    SuccessorParams,
    ThresholdParams,
)
from ontogeny.params.checkpoints import (
    CheckpointsParams,
    CoverageParams,
    FolderParams,
    FollowedParams,
    HubParams,
    ScaleParams,
    step_pattern,
)
from ontogeny.params.data import CorpusParams, DatasetsParams, SentenceKind, TextParams
from ontogeny.params.execution import ExecutionParams, FiguresParams, RayParams, TrackingParams
from ontogeny.params.section import Choice, Fraction, Section, Share
from ontogeny.params.study import STUDIES, FolderStudyParams, HubStudyParams, LadderStudyParams, Params, load_params
from ontogeny.params.suite import MEMBER, SuiteParams, split_member
from ontogeny.params.trajectory import ClaimsParams, TrajectoryParams
from ontogeny.params.transfer import TransferParams
from ontogeny.params.tune import CHECKPOINT, SpaceParams, TruthParams, TuneParams, TuneResamplingParams

__all__ = [
    "CHECKPOINT",
    "MEMBER",
    "STUDIES",
    "AlgorithmParams",
    "AnalyseParams",
    "AttentionParams",
    "AttributionParams",
    "BaselineParams",
    "BehaviourParams",
    "CheckpointsParams",
    "Choice",
    "ClaimsParams",
    "CopySuppressionParams",
    "CopyingParams",
    "CorpusParams",
    "CoverageParams",
    "DatasetsParams",
    "ExecutionParams",
    "FiguresParams",
    "FolderParams",
    "FolderStudyParams",
    "FollowedParams",
    "Fraction",
    "HubParams",
    "HubStudyParams",
    "LadderStudyParams",
    "Method",
    "Params",
    "RayParams",
    "RolesParams",
    "Rule",
    "ScaleParams",
    "SearchParams",
    "Section",
    "SelectionName",
    "SentenceKind",
    "Share",
    "SpaceParams",
    "StabilityParams",
    "SuccessorParams",
    "SuiteParams",
    "TextParams",
    "ThresholdParams",
    "TrackingParams",
    "TrajectoryParams",
    "TransferParams",
    "TruthParams",
    "TuneParams",
    "TuneResamplingParams",
    "load_params",
    "split_member",
    "step_pattern",
]
