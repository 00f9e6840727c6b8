"""Calibration: real seconds of real work, scaled by operations where a stand-in was measured."""

import pytest
import torch

from ontogeny.models.neox import neox_config
from ontogeny.models.outline import outline_of
from ontogeny.params import AnalyseParams, CheckpointsParams, ScaleParams
from ontogeny.planning import calibration
from ontogeny.planning.calibration import Calibration, as_a_worker, calibrate, seconds_per_step
from ontogeny.planning.effort import Effort, flops_per_token

SCALE = ScaleParams(layers=1, heads=1, d_model=8)


def test_seconds_are_efforts_times_what_was_measured() -> None:
    measured = Calibration(forward=2.0, circuit=3.0, operation=0.5, load=100.0)
    assert measured.seconds(Effort(forward=10, circuits=4, extra=6.0)) == 10 * 2 + 4 * 3 + 6 * 0.5


def test_a_small_model_is_measured_itself_on_one_thread() -> None:
    config = neox_config(SCALE, 128, 50, 0.25).to_json()
    threads = torch.get_num_threads()
    with as_a_worker():
        assert torch.get_num_threads() == 1
        found = calibrate(config, outline_of(config), AnalyseParams(), "cpu")
        step = seconds_per_step(SCALE, CheckpointsParams(scales={"a": SCALE}, batch=2), 50, "cpu")
    assert torch.get_num_threads() == threads
    assert min(found.forward, found.circuit, found.operation, found.load, step) > 0.0


def test_a_large_model_takes_longer_by_its_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock is made to run evenly: every measurement takes one second."""
    monkeypatch.setattr(calibration, "_seconds", lambda _: 1.0)
    monkeypatch.setattr(calibration, "PROXY", neox_config(SCALE, 128, 50, 0.25).to_json())
    config = neox_config(ScaleParams(layers=12, heads=12, d_model=768), 2048, 50304, 0.25).to_json()
    small, large = outline_of(calibration.PROXY), outline_of(config)
    measured, found = (
        calibrate(c, o, AnalyseParams(), "cpu") for c, o in ((calibration.PROXY, small), (config, large))
    )
    ratio = flops_per_token(large.architecture) / flops_per_token(small.architecture)
    assert found.forward == pytest.approx(ratio * measured.forward)
    assert found.circuit == pytest.approx(ratio * measured.circuit)
    assert found.operation == pytest.approx(measured.operation)
    assert found.load == pytest.approx(measured.load * large.parameters / small.parameters)
