"""What checkpoints from a hub cost beyond the hub and the analysis: overlap, disk, and loading; seconds of wall time.

A hub limited to 50 MB/s serves 20 checkpoints of pythia-70m's shape. They are fetched (download alone), analysed as
they lie there (analysis alone), and both from nothing (together): the last may take 1.15 times the longer of the first
two, and the disk may hold the budget and one checkpoint more. Loading a 160m checkpoint into a checked subject may take
twice the plain `from_pretrained`, both on one core, as a worker has it. The hub is a process of its own, on the first
of our cores.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[1]))
MB = 1e6
NAME = "EleutherAI/pythia-70m"
OVERLAP_LIMIT, LOAD_LIMIT = 1.15, 2.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoints", type=int, default=20)
    parser.add_argument("--speed", type=float, default=50.0, help="MB/s of the hub")
    parser.add_argument("--budget", type=float, default=0.5, help="GB on the disk")
    parser.add_argument("--pairs", type=int, default=100, help="prompt pairs of each split that are analysed")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve is not None:
        serve(arguments)
        return
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        measure_hub(root, arguments)  # First: the hub's client reads HF_ENDPOINT when it is imported.
        measure_loading(root)


def say(what: str, seconds: float, note: str = "") -> None:
    sys.stdout.write(f"{what:44} {seconds:8.2f} s  {note}\n")
    sys.stdout.flush()


# --- The hub --------------------------------------------------------------------------------------------------------


def serve(arguments: argparse.Namespace) -> None:
    """Write the checkpoints, say where they are served, and serve until we are stopped."""
    from support.hub import serving
    from support.hub_models import SHAPES, pythia_tokenizer, write_model

    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    first = write_model(arguments.serve / "step0", SHAPES["70m"], 0, pythia_tokenizer())
    content = (first / "model.safetensors").read_bytes()
    with serving(arguments.speed * MB) as hub:
        for step in range(arguments.checkpoints):
            place = arguments.serve / f"step{step}"
            place.mkdir(exist_ok=True)
            for name in ("config.json", "tokenizer.json"):
                (place / name).write_bytes((first / name).read_bytes())
            (place / "model.safetensors").write_bytes(content[:-1] + bytes([step]))
            hub.repository(NAME).commit(f"step{step}", place)
        sys.stdout.write(hub.endpoint + "\n")
        sys.stdout.flush()
        sys.stdin.read()


def measure_hub(root: Path, arguments: argparse.Namespace) -> None:
    command = [sys.executable, __file__, "--serve", str(root / "served"), "--speed", str(arguments.speed)]
    command += ["--checkpoints", str(arguments.checkpoints)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as hub:
        assert hub.stdout is not None
        os.environ |= {"HF_ENDPOINT": hub.stdout.readline().strip(), "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
        run(root, arguments)
        hub.kill()


def run(root: Path, arguments: argparse.Namespace) -> None:
    """The three runs."""
    from huggingface_hub import constants

    from ontogeny.models.hub_source import HubSource
    from ontogeny.params import CoverageParams, HubParams, TransferParams

    def source(name: str, budget: float | None) -> HubSource:
        constants.HF_HUB_CACHE = str(root / name / "hub")
        return HubSource(
            suite="pythia", members=("70m-s0",), settings=HubParams(
                family="pythia", tokens_per_step=2_097_152, coverage=CoverageParams(algorithm="none")
            ), tokenizer=NAME, study=root / name, project=root, budget=None if budget is None else int(budget * 1e9),
            transfer=TransferParams(), ahead_by=1,
        )  # fmt: skip

    analyse = analysis(arguments.pairs)
    found = source("alone", None)
    refs = found.references("70m-s0", root / "alone" / "data" / "checkpoints" / "70m-s0")
    size = found.forecast("70m-s0")[0].bytes
    started = time.monotonic()
    for ref in refs:
        with found.opened(ref):
            pass
    download = time.monotonic() - started
    say("download alone", download, f"{len(refs)} x {size / MB:.0f} MB")
    started = time.monotonic()
    for ref in refs:
        with found.opened(ref) as folder:
            analyse(folder)
    alone = time.monotonic() - started
    say("analysis alone", alone)
    found = source("together", arguments.budget)
    refs = found.references("70m-s0", root / "together" / "data" / "checkpoints" / "70m-s0")
    with watched(root / "together") as peak:
        started = time.monotonic()
        with found.ahead(refs):
            for ref in refs:
                with found.opened(ref) as folder:
                    analyse(folder)
        together = time.monotonic() - started
    ratio = together / max(download, alone)
    say("together", together, f"{ratio:.2f} x the longer (limit {OVERLAP_LIMIT}) {verdict(ratio <= OVERLAP_LIMIT)}")
    room = arguments.budget * 1e9 + size
    note = f"of {arguments.budget * 1000:.0f} MB and one checkpoint {verdict(peak.bytes <= room)}"
    sys.stdout.write(f"{'peak disk':44} {peak.bytes / MB:8.0f} MB {note}\n")


def verdict(holds: bool) -> str:
    return "ok" if holds else "MISSED"


class watched:  # noqa: N801
    """The largest number of bytes under a folder while the block lasts, looked at ten times a second."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.bytes, self.over = folder, 0, threading.Event()

    def __enter__(self) -> watched:
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.thread.join()

    def _watch(self) -> None:
        while not self.over.wait(0.1):
            self.bytes = max(self.bytes, sum(_sizes(self.folder)))


def _sizes(folder: Path) -> Sequence[int]:
    sizes = []
    for path in folder.rglob("*"):
        try:
            sizes.append(0 if path.is_symlink() or path.is_dir() else path.stat().st_size)
        except FileNotFoundError:
            continue
    return sizes


def analysis(pairs: int) -> Callable[[Path], None]:
    """What is done with a checkpoint: it is loaded, and its behaviour on IOI is measured."""
    from ontogeny.analysis import analyse_behaviour, tokenize_splits
    from ontogeny.models.subject import load_subject
    from ontogeny.params import AnalyseParams
    from ontogeny.tasks import get_task
    from ontogeny.tasks.tokenizer import FileTokenizer
    from support.hub_models import pythia_tokenizer

    dataset = get_task("ioi").generate(FileTokenizer(pythia_tokenizer()), size=pairs, seed=0)

    def analyse(folder: Path) -> None:
        subject = load_subject(folder)
        analyse_behaviour(subject, tokenize_splits(subject, dataset), AnalyseParams())

    return analyse


# --- Loading --------------------------------------------------------------------------------------------------------


def measure_loading(root: Path) -> None:
    """A 160m checkpoint in float16 on the disk: plain, and as a subject; medians of five alternating pairs."""
    import torch
    from transformers import AutoModelForCausalLM

    from ontogeny.models.subject import load_subject
    from support.hub_models import SHAPES, pythia_tokenizer, write_model

    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    folder = write_model(root / "160m", SHAPES["160m"], 0, pythia_tokenizer())
    plain, ours = [], []
    for turn in range(6):
        for times, load in (
            (plain, lambda: AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)),
            (ours, lambda: load_subject(folder)),
        ):
            started = time.monotonic()
            load()
            if turn:
                times.append(time.monotonic() - started)
    base, mine = statistics.median(plain), statistics.median(ours)
    say("from_pretrained, 160m", base)
    say(
        "load_subject, 160m",
        mine,
        f"{mine / base:.2f} x plain (limit {LOAD_LIMIT}) {verdict(mine <= LOAD_LIMIT * base)}",
    )


if __name__ == "__main__":
    main()
