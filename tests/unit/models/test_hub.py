"""Checkpoints from a hub: pinned once, fetched whole or refused, and removed when others need their place."""

import dataclasses
import errno
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM

from ontogeny.core.errors import BadCheckpoint, OntogenyError
from ontogeny.core.results import CheckpointRef
from ontogeny.models.checkpoints import FoundSource, TrainedSource, checkpoint_source
from ontogeny.models.hub import Pin, Unreachable
from ontogeny.models.hub_cache import HubCache
from ontogeny.models.hub_source import HubSource
from ontogeny.models.neox import NeoxConfig
from ontogeny.models.subject import load_subject
from ontogeny.params import load_params
from ontogeny.tasks.tokenizer import train_tokenizer
from support.hub import CHUNK, Fault, Hub, serving
from support.hub_models import write_model
from support.hub_session import turn_to

ROOT = Path(__file__).parents[3]
SHAPE = NeoxConfig(2, 2, 16, 4000, 128)
STEPS = (0, 1, 2, 4, 1000)
NAME = "EleutherAI/pythia-70m"
Corner = dict[str, Any]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint a step; the files are some 270 kB."""
    root = tmp_path_factory.mktemp("models")
    train_tokenizer(["a b c"], ["d"], root / "tokenizer")
    for step in STEPS:
        write_model(root / f"step{step}", SHAPE, step, root / "tokenizer" / "tokenizer.json")
    return root


@pytest.fixture(autouse=True)
def hub(folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serving() as hub:
        for step in STEPS:
            hub.repository(NAME).commit(f"step{step}", folders / f"step{step}")
        hub.repository(NAME).commit("main", folders / "step1000")
        turn_to(hub, tmp_path / "home", monkeypatch)
        yield hub


def source(tmp_path: Path, changes: Corner | None = None, members: tuple[str, ...] = ("70m-s0",)) -> HubSource:
    """The suite of a preset, with some of its settings replaced (dotted keys)."""
    data = yaml.safe_load((ROOT / "params" / "pythia-160m-ioi.yaml").read_text())
    data["suite"]["members"] = list(members)
    data["corpus"]["tokenizer"] = NAME
    data["checkpoints"]["coverage"] = {"behaviour": "all", "circuits": "all", "algorithm": "all"}
    data["execution"] |= {"n_jobs": 1, "disk_gb": None}
    for key, value in (changes or {}).items():
        *sections, last = key.split(".")
        place = data
        for section in sections:
            place = place[section]
        place[last] = value
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(data))
    found = checkpoint_source(load_params(tmp_path / "params.yaml"), tmp_path, tmp_path)
    assert isinstance(found, HubSource)
    assert isinstance(found, FoundSource)
    assert not isinstance(found, TrainedSource)
    return found


def pinned(found: HubSource, member: str = "70m-s0") -> dict[int, CheckpointRef]:
    """The references of a member, as the stage leaves them."""
    refs = found.references(member, found.study / "data" / "checkpoints" / member)
    return {ref.step: ref for ref in refs}


# --- What there is --------------------------------------------------------------------------------------------------


def test_references_name_commits_and_hashes_without_a_download(hub: Hub, tmp_path: Path) -> None:
    found = source(tmp_path)
    found.check()
    refs = pinned(found)
    assert list(refs) == list(STEPS)
    for step, ref in refs.items():
        assert ref.commit == hub.repository(NAME).branches[f"step{step}"]
        assert ref.path == f"{NAME}@step{step}"
        assert ref.tokens == step * 2_097_152
    assert len({ref.weights_digest for ref in refs.values()}) == len(STEPS)
    assert len({ref.config_digest for ref in refs.values()}) == 1
    assert hub.downloads(NAME) == []
    forecast = found.forecast("70m-s0")
    assert [f.step for f in forecast] == list(STEPS)
    assert all(f.missing <= f.bytes for f in forecast)
    assert all(f.missing > 200_000 for f in forecast)
    assert found.config("70m-s0")["hidden_size"] == SHAPE.d_model


def test_what_was_pinned_stays_though_the_branch_moves(hub: Hub, folders: Path, tmp_path: Path) -> None:
    before = pinned(source(tmp_path))
    hub.repository(NAME).commit("step4", folders / "step1000")
    asked = len(hub.asked)
    assert pinned(source(tmp_path)) == before
    assert len(hub.asked) == asked
    for file in (tmp_path / ".cache" / "pins").rglob("*.json"):
        file.unlink()
    after = pinned(source(tmp_path))
    assert after[4] != before[4]
    assert after[4].weights_digest == after[1000].weights_digest


def test_a_schedule_is_all_that_is_pinned(hub: Hub, tmp_path: Path) -> None:
    coverage = {"behaviour": [0, 4, 1000], "circuits": [4, 1000], "algorithm": "none"}
    refs = pinned(source(tmp_path, {"checkpoints.coverage": coverage}))
    assert {step: len(ref.analyses) for step, ref in refs.items()} == {0: 1, 4: 2, 1000: 2}
    trees = [asked.path for asked in hub.asked if "/tree/" in asked.path]
    assert len(trees) == 3


def test_revisions_by_a_pattern_of_ones_own(hub: Hub, folders: Path, tmp_path: Path) -> None:
    for step in (0, 4):
        hub.repository("allenai/OLMo").commit(f"step{step}-tokens{4 * step}B", folders / f"step{step}")
    changes = {
        "checkpoints.family": None,
        "checkpoints.repositories": {"olmo-s0": "allenai/OLMo"},
        "checkpoints.revisions": r"step(\d+)-tokens\d+B",
        "checkpoints.tokens_per_step": 4_194_304,
    }
    refs = pinned(source(tmp_path, changes, ("olmo-s0",)), "olmo-s0")
    assert [ref.tokens for ref in refs.values()] == [0, 4 * 4_194_304]


# --- Bad input ------------------------------------------------------------------------------------------------------


def refused(found: HubSource) -> str:
    with pytest.raises(OntogenyError) as caught:
        found.check()
    return str(caught.value)


def test_an_unknown_member_is_told_the_nearest(hub: Hub, tmp_path: Path) -> None:
    said = refused(source(tmp_path, members=("170m-s0",)))
    assert "no Pythia '170m-s0'" in said
    assert "70m-s0" in said
    assert hub.asked == []


def test_an_unknown_repository_is_told_the_nearest(tmp_path: Path) -> None:
    changes = {"checkpoints.repositories": {"x-s0": "EleutherAI/pythia-7m"}}
    said = refused(source(tmp_path, changes, ("x-s0",)))
    assert "no repository EleutherAI/pythia-7m" in said
    assert f"Nearest: {NAME}" in said


def test_an_unknown_step_is_told_the_nearest(tmp_path: Path) -> None:
    said = refused(source(tmp_path, {"checkpoints.coverage.circuits": [3]}))
    assert "step 3; nearest: 1, 2, 4" in said


def test_revisions_without_steps_are_refused(hub: Hub, tmp_path: Path) -> None:
    hub.repositories[NAME].branches = {"main": hub.repositories[NAME].branches["main"]}
    assert "it has: main" in refused(source(tmp_path))


def test_a_pattern_that_finds_a_step_twice_is_refused(hub: Hub, folders: Path, tmp_path: Path) -> None:
    hub.repository(NAME).commit("step4-unsharded", folders / "step4")
    said = refused(source(tmp_path, {"checkpoints.revisions": r"step(\d+).*"}))
    assert "step 4" in said
    assert "step4-unsharded" in said


def test_a_revision_that_is_no_checkpoint_is_refused(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "readme").mkdir()
    (tmp_path / "readme" / "README.md").write_text("Soon.")
    hub.repository(NAME).commit("step8", tmp_path / "readme")
    said = refused(source(tmp_path))
    assert "step8 has no config.json" in said


def test_other_tokenizers_within_a_suite_are_refused(hub: Hub, tmp_path: Path) -> None:
    train_tokenizer(["a b c"], ["e"], tmp_path / "other")
    folder = write_model(tmp_path / "step9", SHAPE, 9, tmp_path / "other" / "tokenizer.json")
    hub.repository("EleutherAI/pythia-160m").commit("step9", folder)
    said = refused(source(tmp_path, members=("70m-s0", "160m-s0")))
    assert "160m-s0: the tokenizer of EleutherAI/pythia-160m at step9 is another" in said


def test_the_same_tokenizer_laid_out_otherwise_is_none_other(hub: Hub, folders: Path, tmp_path: Path) -> None:
    text = json.loads((folders / "tokenizer" / "tokenizer.json").read_text())
    (tmp_path / "tokenizer.json").write_text(json.dumps(text, indent=4) + "\n")
    folder = write_model(tmp_path / "step9", SHAPE, 9, tmp_path / "tokenizer.json")
    hub.repository("EleutherAI/pythia-160m").commit("step9", folder)
    source(tmp_path, members=("70m-s0", "160m-s0")).check()


def test_a_repository_without_a_tokenizer_is_refused(hub: Hub, tmp_path: Path) -> None:
    hub.repository("somebody/model").commit("main", write_model(tmp_path / "m", SHAPE, 0, None))
    said = refused(source(tmp_path, {"corpus.tokenizer": "somebody/model"}))
    assert said.startswith("corpus.tokenizer: ")
    assert "no tokenizer.json" in refused(source(tmp_path, {"corpus.tokenizer": str(tmp_path / "m")}))
    assert "no folder" in refused(source(tmp_path, {"corpus.tokenizer": "./nowhere"}))
    assert "no revision 'v2'" in refused(source(tmp_path, {"corpus.tokenizer": f"{NAME}@v2"}))


def test_a_gated_repository_says_where_to_ask_and_opens_with_a_token(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.repository(NAME).gated = True
    hub.repository(NAME).token = "hf_let_me_in"
    said = refused(source(tmp_path))
    assert "is gated" in said
    assert "HF_TOKEN" in said
    monkeypatch.setenv("HF_TOKEN", "hf_let_me_in")
    found = source(tmp_path)
    found.check()
    with found.opened(pinned(found)[4]):
        pass
    assert len(hub.downloads(NAME)) == 1
    assert not any(asked.authorised for asked in hub.downloads(NAME))


def test_no_network_and_nothing_cached_is_said_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(Unreachable, match="does not answer for EleutherAI/pythia-70m"):
        source(tmp_path).check()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(Unreachable, match="HF_HUB_OFFLINE"):
        source(tmp_path).check()


def test_what_is_here_needs_no_network(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    found = source(tmp_path)
    found.check()
    ref = pinned(found)[4]
    with found.opened(ref):
        pass
    asked = len(hub.asked)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    source(tmp_path).check()
    with found.opened(ref) as folder:
        assert load_subject(folder).parameters > 0
    assert len(hub.asked) == asked
    with pytest.raises(OntogenyError, match="HF_HUB_OFFLINE"), found.opened(pinned(found)[1]):
        pass


# --- Fetching -------------------------------------------------------------------------------------------------------


def test_a_checkpoint_is_what_from_pretrained_loads(tmp_path: Path) -> None:
    found = source(tmp_path)
    with found.opened(pinned(found)[1000]) as folder:
        subject = load_subject(folder)
        direct = AutoModelForCausalLM.from_pretrained(NAME, revision="step1000", dtype=torch.float32)
    tokens = torch.arange(24).view(3, 8) * 131 % SHAPE.vocabulary
    logits = subject.logits(tokens, torch.full((3,), 8))
    with torch.no_grad():
        expected = direct(tokens).logits[:, -1]
    assert expected.std() > 0.5
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)
    other = write_model(tmp_path / "other", SHAPE, 4, None)
    assert not torch.allclose(load_subject(other).logits(tokens, torch.full((3,), 8)), expected, atol=1e-2)


def test_both_names_of_the_unembedding_load(tmp_path: Path) -> None:
    """`embed_out` is what Pythia's files say, `lm_head` what newer ones do."""
    tokens, lengths = torch.arange(16).view(2, 8), torch.full((2,), 8)
    old, new = (load_subject(write_model(tmp_path / h, SHAPE, 3, None, head=h)) for h in ("embed_out", "lm_head"))
    assert old.logits(tokens, lengths).std() > 0.5
    assert torch.equal(old.logits(tokens, lengths), new.logits(tokens, lengths))


@pytest.mark.parametrize("kind", ["cut", "reset", "stall", "status"])
def test_a_download_in_trouble_goes_on_where_it_stopped(hub: Hub, tmp_path: Path, kind: str) -> None:
    found = source(tmp_path)
    ref = pinned(found)[4]
    hub.faults.append(Fault(kind, "/cdn/", times=2, after=2 * CHUNK, seconds=1.5))
    with found.opened(ref) as folder:
        assert load_subject(folder).parameters > 0
    requests = hub.downloads(NAME)
    assert len(requests) == 3
    if kind != "status":
        assert str(requests[1].range).startswith("bytes=")


def test_without_xet_a_hub_that_announces_it_serves_plain_files(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HF_HUB_DISABLE_XET=1. (All other tests leave it alone, with the package there, at a hub that announces none.)"""
    from huggingface_hub import constants

    hub.announces_xet = True
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    found = source(tmp_path)
    hub.faults.append(Fault("cut", "/cdn/", after=2 * CHUNK))
    with found.opened(pinned(found)[4]) as folder:
        assert load_subject(folder).parameters > 0
    assert str(hub.downloads(NAME)[1].range).startswith("bytes=")


def test_a_download_that_was_killed_goes_on_where_it_stopped(hub: Hub, tmp_path: Path) -> None:
    found = source(tmp_path)
    ref = pinned(found)[4]
    hub.faults += [Fault("cut", "/cdn/", after=2 * CHUNK), Fault("status", "/cdn/", times=-1)]
    with pytest.raises(Unreachable), found.opened(ref):
        pass
    (partial,) = (tmp_path / "home" / "ontogeny" / "partial").iterdir()
    arrived = partial.stat().st_size
    assert arrived >= 2 * CHUNK
    hub.faults.clear()
    hub.asked.clear()
    with found.opened(ref) as folder:
        assert load_subject(folder).parameters > 0
    assert [asked.range for asked in hub.downloads(NAME)] == [f"bytes={arrived}-"]


def test_a_hub_that_stays_in_trouble_is_given_up(hub: Hub, tmp_path: Path) -> None:
    found = source(tmp_path)
    ref = pinned(found)[4]
    hub.faults.append(Fault("status", "/cdn/", times=-1, status=500))
    with pytest.raises(Unreachable, match="500"), found.opened(ref):
        pass
    assert 2 <= len(hub.downloads(NAME)) <= 10


@pytest.mark.parametrize(
    ("kind", "where", "said"),
    [
        ("tampered", "/cdn/", "is not what the hub lists"),
        ("longer", "/cdn/", "is not what the hub lists"),
        ("announced", "model.safetensors", "the hub serves another file than it lists"),
    ],
)
def test_a_file_that_is_not_the_listed_one_is_refused_and_removed(
    hub: Hub, tmp_path: Path, kind: str, where: str, said: str
) -> None:
    found = source(tmp_path)
    ref = pinned(found)[4]
    hub.faults.append(Fault(kind, where, times=-1))
    with pytest.raises(OntogenyError, match=said), found.opened(ref):
        pass
    snapshots = list((tmp_path / "home" / "hub").rglob("*.safetensors"))
    assert snapshots == []
    hub.faults.clear()
    with found.opened(ref) as folder:
        assert load_subject(folder).parameters > 0


def test_a_file_that_was_changed_here_is_refused_and_fetched_again(tmp_path: Path) -> None:
    found = source(tmp_path)
    ref = pinned(found)[4]
    with found.opened(ref) as folder:
        path = folder / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(BadCheckpoint, match="is not what the hub lists"), found.opened(ref):
        pass
    with found.opened(ref) as folder:
        assert (folder / "model.safetensors").read_bytes() == content


def test_a_commit_that_is_gone_says_how_to_pin_anew(hub: Hub, tmp_path: Path) -> None:
    found = source(tmp_path)
    ref = pinned(found)[4]
    del hub.repository(NAME).commits[ref.commit]
    with pytest.raises(OntogenyError, match=r"\.cache/pins"), found.opened(ref):
        pass


def test_a_disk_that_fills_is_said_and_leaves_no_half_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = source(tmp_path)
    refs = pinned(found)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("huggingface_hub.file_download.http_get", full)
        with pytest.raises(OntogenyError, match="The disk is full"), found.opened(refs[4]):
            pass
    with monkeypatch.context() as patch:
        patch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000})())
        with pytest.raises(OntogenyError, match="The disk is full"), found.opened(refs[4]):
            pass
    with found.opened(refs[4]) as folder:
        assert load_subject(folder).parameters > 0


# --- Room -----------------------------------------------------------------------------------------------------------


def test_the_least_recently_needed_makes_room_and_what_is_in_use_stays(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ontogeny.models.hub_source.choose_anchors", lambda *_: ())
    one = sum(
        file.stat().st_size for file in hub.repository(NAME).commits[hub.repository(NAME).branches["step0"]].values()
    )
    found = source(tmp_path, {"execution.disk_gb": 3.5 * one / 1e9})
    refs = pinned(found)

    def here() -> set[int]:
        home = tmp_path / "home" / "hub"
        return {
            step
            for step, ref in refs.items()
            if (home / "models--EleutherAI--pythia-70m/snapshots" / ref.commit / "model.safetensors").exists()
        }

    with found.opened(refs[0]):
        for step in (1, 2):
            with found.opened(refs[step]):
                pass
        assert here() == {0, 1, 2}
        with found.opened(refs[1]):
            pass
        with found.opened(refs[4]):
            assert here() == {0, 1, 4}
        with found.opened(refs[1000]):
            assert here() == {0, 4, 1000}
    assert found.cache.bytes <= 3.5 * one
    assert sum(path.stat().st_size for path in (tmp_path / "home").rglob("*.safetensors") if not path.is_symlink()) == 0
    with found.opened(refs[2]):
        assert here() == {0, 2, 1000}


def test_anchors_stay_as_long_as_others_can_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ontogeny.models.hub_source.choose_anchors", lambda *_: (0, 1))
    found = source(tmp_path, {"execution.disk_gb": 3.5 * 0.31e-3})
    refs = pinned(found)
    for step in (0, 1, 2, 4, 1000):
        with found.opened(refs[step]):
            pass
    pins = found._pinned("70m-s0")
    assert [step for step in STEPS if found.cache.is_whole(pins[step][0])] == [0, 1, 1000]


def test_what_others_had_fetched_is_never_removed(tmp_path: Path) -> None:
    from huggingface_hub import snapshot_download

    snapshot_download(NAME, revision="step0")
    found = source(tmp_path, {"execution.disk_gb": 1e-4})
    refs = pinned(found)
    for step in (0, 1, 2):
        with found.opened(refs[step]):
            pass
    pins = found._pinned("70m-s0")
    assert [step for step in STEPS if found.cache.is_whole(pins[step][0])] == [0, 2]


def test_one_that_waits_for_room_gets_it(tmp_path: Path) -> None:
    """With less room than one checkpoint, two that are opened at once still both succeed, one after the other."""
    found = source(tmp_path, {"execution.disk_gb": 1e-4})
    refs = pinned(found)
    opened: list[int] = []

    def use(step: int) -> None:
        with found.opened(refs[step]):
            opened.append(step)
            time.sleep(0.3)

    threads = [threading.Thread(target=use, args=(step,)) for step in (1, 2, 4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(opened) == [1, 2, 4]
    assert found.cache.bytes < 2 * 0.4e6


def eventually(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.02)


def test_the_next_ones_come_while_one_is_in_use_but_not_all(hub: Hub, tmp_path: Path) -> None:
    found = dataclasses.replace(source(tmp_path), ahead_by=2)
    refs = pinned(found)
    pins = found._pinned("70m-s0")

    def whole() -> list[int]:
        return [step for step in STEPS if found.cache.is_whole(pins[step][0])]

    with found.ahead([refs[step] for step in STEPS]):
        eventually(lambda: whole() == [0, 1])
        time.sleep(0.4)
        assert whole() == [0, 1]
        before = len(hub.downloads(NAME))
        with found.opened(refs[0]):
            assert len(hub.downloads(NAME)) == before
            eventually(lambda: whole() == [0, 1, 2])
        with found.opened(refs[1]):
            eventually(lambda: whole() == [0, 1, 2, 4])


@pytest.mark.parametrize("room", [1.2, 2.2, 3.2])
def test_fetching_ahead_and_removing_never_get_in_the_way_of_who_reads(hub: Hub, tmp_path: Path, room: float) -> None:
    """Also where two steps are the same commit."""
    hub.repository(NAME).branches["step1"] = hub.repository(NAME).branches["step0"]
    one = source(tmp_path).forecast("70m-s0")[0].bytes
    found = dataclasses.replace(source(tmp_path, {"execution.disk_gb": room * one / 1e9}), ahead_by=2)
    refs = list(reversed(pinned(found).values()))
    largest = 0
    with found.ahead(refs):
        for ref in refs:
            with found.opened(ref) as folder:
                time.sleep(0.2)
                assert load_subject(folder).parameters > 0
                time.sleep(0.2)
            largest = max(largest, found.cache.bytes)
    assert one <= largest <= (room + 1) * one


def test_what_is_just_being_fetched_is_not_yet_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = source(tmp_path)
    refs = pinned(found)
    pin = found._pinned("70m-s0")[4][0]
    download, before = HubCache._download, []

    def watched(cache: HubCache, pin: Pin) -> None:
        before.append(cache.is_whole(pin))
        download(cache, pin)
        before.append(cache.is_whole(pin))

    monkeypatch.setattr(HubCache, "_download", watched)
    with found.opened(refs[4]):
        assert found.cache.is_whole(pin)
    assert before == [False, False]
