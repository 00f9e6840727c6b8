"""The shape of a model from its config.json alone, and models of that shape with random weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ontogeny.models.families import read_weights
from ontogeny.models.weights import Architecture


@dataclass(frozen=True)
class Outline:
    """A model without its weights."""

    architecture: Architecture
    parameters: int
    """Numbers in the model."""


def outline_of(config: Mapping[str, Any]) -> Outline:
    """Of a config.json; nothing is allocated.

    Raises:
        UnsupportedModel: the engine does not describe this family, or an option of it.
    """
    model = _model(config, "meta", torch.float32)
    return Outline(read_weights(model).architecture, sum(p.numel() for p in model.parameters()))


def random_model(config: Mapping[str, Any], device: str, dtype: torch.dtype) -> Any:
    """A Hugging Face model of this shape with random weights, for measurements."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return _model(config, "cpu", dtype).to(device).eval()


def _model(config: Mapping[str, Any], device: str, dtype: torch.dtype) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    facts = {key: value for key, value in config.items() if key not in ("model_type", "architectures")}
    shape = AutoConfig.for_model(config["model_type"], **facts)
    with torch.device(device):
        return AutoModelForCausalLM.from_config(shape, dtype=dtype).requires_grad_(False)
