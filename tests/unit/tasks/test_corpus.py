"""The corpus keeps the tasks' prompts out, says what METHODS 11 asks for, and has the same bytes every time."""

import random
import re
from collections import Counter
from itertools import combinations
from pathlib import Path

import pytest
import torch

from ontogeny.core.pairs import PromptPair
from ontogeny.params import CorpusParams
from ontogeny.tasks import get_task, task_names, words
from ontogeny.tasks.corpus import (
    DECIDED,
    LONGEST,
    UNDECIDED,
    build_corpus,
    held_out_documents,
    load_stream,
    load_tokenizer,
    unmark,
)
from ontogeny.tasks.gendered_pronoun import name_held_out
from ontogeny.tasks.greater_than import event_held_out
from ontogeny.tasks.ioi import names_held_out
from ontogeny.tasks.probes import probe_sets
from ontogeny.tasks.sentences import KINDS, ORDINARY, STORIES, duration, giving, repeated_run
from ontogeny.tasks.sva import CONSTRUCTIONS, subject_held_out


@pytest.fixture(scope="module")
def text(corpus_dir: Path) -> str:
    """All of the training and held-out text in lower case: a sentence after a lead starts with a small letter."""
    return "\n".join((corpus_dir / f"{name}.txt").read_text() for name in ("train", "held_out")).lower()


@pytest.fixture(scope="module")
def told() -> list[str]:
    """Giving stories alone, without their marks."""
    rng = random.Random(0)
    return [giving(rng, set()).replace("*", "") for _ in range(5000)]


@pytest.mark.parametrize("name", task_names())
def test_no_prompt_of_a_task_is_in_the_corpus(name: str, corpus_dir: Path, text: str) -> None:
    tokenizer = load_tokenizer(corpus_dir)
    pairs: list[PromptPair] = []
    for seed in range(3):
        dataset = get_task(name).generate(tokenizer, seed=seed)
        pairs += [pair for split in dataset.splits.values() for pair in split]
    assert [p for pair in pairs for p in (pair.clean, pair.corrupted) if p.lower() in text] == []


def test_the_search_would_find_prompts_that_are_not_held_out(text: str) -> None:
    assert "the war lasted from the year 17" in text or "the siege lasted from the year 17" in text
    assert re.search(r"so \w+ is such a kind teacher, isn't s?he", text)
    assert re.search(r"when (\w+) and (\w+) went to the store, (\1|\2) gave a \w+ to (\1|\2)", text)


def test_no_probe_is_in_the_corpus(corpus_dir: Path, text: str) -> None:
    for probes in probe_sets(load_tokenizer(corpus_dir)).values():
        assert not [probe.prompt for probe in probes if probe.prompt.lower() in text]


def test_names_held_out_never_meet_in_a_giving_story(told: list[str]) -> None:
    met: Counter[bool] = Counter()
    for story in told:
        names = sorted(set(re.findall(r"[A-Z][a-z]+", story)) & set(words.NAMES))
        met.update(names_held_out(*pair) for pair in combinations(names, 2))
    assert met[True] == 0
    assert met[False] > 5000


def test_events_phrases_and_subjects_held_out_never_occur(text: str) -> None:
    dated = set(re.findall(r"the (\w+) (?:lasted from the year|began in) (\d\d)\d\d", text))
    dated |= {(event, century) for century, event in re.findall(r"from (\d\d)\d\d to \d{4} there was a (\w+)", text)}
    assert len(dated) > 80
    assert not [d for d in dated if event_held_out(*d)]
    said = set(re.findall(r"(\w+) is ([a-z ]+), isn't", text))
    assert len(said) > 100
    assert not [(n, p) for n, p in said if name_held_out(n.capitalize(), p)]
    subjects = set(re.findall(rf"the (?:{'|'.join(words.ADJECTIVES)}) (\w+?)s? ", text))
    assert len(subjects) > 10
    assert not [noun for noun in subjects if subject_held_out("simple", noun)]


def test_every_share_is_held_out_but_not_everything() -> None:
    pairs = [names_held_out(a, b) for a, b in combinations(words.NAMES, 2)]
    assert 0.18 < sum(pairs) / len(pairs) < 0.32
    for construction in CONSTRUCTIONS:
        kept = [subject_held_out(construction.name, noun) for noun in construction.subjects]
        assert 1 <= sum(kept) < len(kept)


def test_the_last_name_of_a_story_is_named_once_and_did_not_give(told: list[str]) -> None:
    names = "|".join(words.NAMES)
    nearest = 0
    for story in told:
        mentions = re.findall(names, story)
        *before, answer = mentions
        assert before.count(answer) == 1, story
        nearest += before[-1] == answer
    assert 0.25 < nearest / len(told) < 0.5


def test_stories_allow_the_answers_that_methods_names() -> None:
    answers = {(story.scenes, story.giver): story.answers for story in STORIES}
    assert answers[("IS",), "S"] == "I"
    assert answers[("IB",), "C"] == "BI"
    assert answers[("IS", "S+B"), ""] == "BI"
    assert answers[("IS", "C+S"), ""] == "I"
    assert all(story.answers for story in STORIES)


def test_durations_are_one_plus_geometric_and_starts_uniform() -> None:
    rng = random.Random(1)
    years = [tuple(map(int, re.findall(r"\d\d(\d\d)", duration(rng, set()).replace("*", "")))) for _ in range(6000)]
    assert all(start < end <= 99 for start, end in years)
    early = [end - start for start, end in years if start < 40]
    assert min(early) == 1
    assert abs(sum(early) / len(early) - 8) < 0.5  # a geometric of mean 8 that starts at 1
    starts = Counter(start for start, _ in years)
    assert set(starts) == set(range(99))


def test_runs_are_said_twice_at_all_lags_the_first_time_undecided_the_second_decided() -> None:
    rng = random.Random(2)
    lags: Counter[int] = Counter()
    for _ in range(20000):
        document = unmark(repeated_run(rng, set()))
        half, odd = divmod(len(document.pieces), 2)
        assert not odd
        assert document.pieces[:half] == document.pieces[half:]  # the very same tokens
        assert len(set(document.pieces)) == half
        assert set(document.roles[:half]) == {UNDECIDED}
        assert set(document.roles[half:]) == {DECIDED}
        lags[half] += 1
    assert set(lags) == set(range(4, 61))
    assert lags[5] / lags[10] == pytest.approx(4, rel=0.2)  # weights 1 / length^2
    assert len(set(ORDINARY)) == len(ORDINARY) > 400


def test_marks_become_roles_and_leave_no_trace() -> None:
    document = unmark("Mary saw John and gave a ring to* John.")
    assert document.text == "Mary saw John and gave a ring to John."
    assert [p for p, role in zip(document.pieces, document.roles) if role == DECIDED] == [" John"]


@pytest.mark.parametrize("kind", list(KINDS))
def test_every_kind_is_plain_text_in_known_words(kind: str, corpus_dir: Path) -> None:
    tokenizer, rng = load_tokenizer(corpus_dir), random.Random(3)
    for _ in range(200):
        document = unmark(KINDS[kind](rng, set()))
        assert not set("*~") & set(document.text)
        assert "  " not in document.text
        ids = tokenizer.encode(document.text)
        assert len(ids) == len(document.pieces) < LONGEST
        assert tokenizer.decode(ids) == document.text


def test_stream_is_the_text(corpus_dir: Path) -> None:
    tokenizer, stream = load_tokenizer(corpus_dir), load_stream(corpus_dir)
    lines = (corpus_dir / "train.txt").read_text().splitlines()
    assert len(stream.starts) == len(lines) + 1
    for i in random.Random(0).sample(range(len(lines)), 300):
        ids = stream.ids[stream.starts[i] : stream.starts[i + 1]].tolist()
        assert ids[:-1] == tokenizer.encode(lines[i])
        assert tokenizer.decode(ids[-1:]) == "<|endoftext|>"
    shares = torch.bincount(stream.roles.long(), minlength=3) / len(stream.roles)
    assert bool((shares > 0.02).all())


def test_held_out_documents_are_other_documents(corpus_dir: Path) -> None:
    train = set((corpus_dir / "train.txt").read_text().splitlines())
    long = [d for d in held_out_documents(corpus_dir) if len(d.split()) > 20]
    assert len(long) > 50
    assert sum(d in train for d in long) / len(long) < 0.01


def test_years_split_and_task_words_are_single_tokens(corpus_dir: Path) -> None:
    tokenizer = load_tokenizer(corpus_dir)
    assert [tokenizer.decode([i]) for i in tokenizer.encode("In 1732")] == ["In", " 17", "32"]
    for word in (*words.NAMES, *words.PRONOUN.values(), *(f for pair in words.AGREEING_VERBS for f in pair)):
        assert len(tokenizer.encode(" " + word)) == 1
    for items in words.SEQUENCES.values():
        for item in items:
            for text in (item, " " + item):
                assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.decode(tokenizer.encode(" zebra")) == "<|unknown|>"


def test_same_params_same_bytes_another_seed_another_text(tmp_path: Path) -> None:
    params = CorpusParams(train_tokens=20_000, held_out_tokens=2_000)
    for name in ("one", "two"):
        build_corpus(params, tmp_path / name)
    build_corpus(params.model_copy(update={"seed": 1}), tmp_path / "three")
    files = sorted(p.relative_to(tmp_path / "one") for p in (tmp_path / "one").rglob("*") if p.is_file())
    assert len(files) == 6
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    assert (tmp_path / "one/train.txt").read_bytes() != (tmp_path / "three/train.txt").read_bytes()
