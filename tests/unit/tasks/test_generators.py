"""What METHODS 2 says of each task, beyond the contract that all tasks keep."""

import re
from collections import Counter
from pathlib import Path

import pytest

from ontogeny.core.errors import ImpossibleRequest
from ontogeny.core.pairs import PromptPair, TaskDataset
from ontogeny.tasks import get_task, task_names, words
from ontogeny.tasks.base import register
from ontogeny.tasks.corpus import load_tokenizer
from ontogeny.tasks.tokenizer import FileTokenizer

PYTHIA = Path(__file__).parents[3].parent / "shared" / "pythia" / "20B_tokenizer.json"


@pytest.fixture(scope="module")
def tokenizer(corpus_dir: Path) -> FileTokenizer:
    return load_tokenizer(corpus_dir)


@pytest.fixture(scope="module")
def pythia() -> FileTokenizer:
    if not PYTHIA.exists():
        pytest.skip(f"Pythia's tokenizer is not at {PYTHIA}")
    return FileTokenizer(PYTHIA)


def all_pairs(dataset: TaskDataset) -> list[PromptPair]:
    return [pair for pairs in dataset.splits.values() for pair in pairs]


def test_the_four_tasks_with_their_published_sizes_and_metrics() -> None:
    published = {"ioi": 70, "gendered_pronoun": 70, "greater_than": 200, "sva": 200}
    assert {name: get_task(name).size for name in task_names()} == published
    assert {name for name in task_names() if get_task(name).metric == "prob_diff"} == {"greater_than", "sva"}


def test_a_task_cannot_be_registered_twice_nor_an_unknown_one_had() -> None:
    with pytest.raises(ValueError, match="ioi"):
        register(get_task("ioi"))
    with pytest.raises(ImpossibleRequest, match="sva"):
        get_task("svaa")


# --- IOI -----------------------------------------------------------------------------------------------------------


def test_ioi_names_io_once_and_s_twice(tokenizer: FileTokenizer) -> None:
    pairs = all_pairs(get_task("ioi").generate(tokenizer))
    for pair in pairs:
        io, s = pair.slots["IO"], pair.slots["S"]
        assert pair.clean.count(io) == 1
        assert pair.clean.count(s) == 2
        assert pair.corrupted == io.join(pair.clean.rsplit(s, 1))
        assert (pair.correct, pair.incorrect) == ((" " + io,), (" " + s,))
        first = min((io, s), key=pair.clean.index)
        assert (first == io) == pair.template.startswith("ABBA")
    orders = Counter(pair.template.split("-")[0] for pair in pairs)
    assert orders == {"ABBA": 105, "BABA": 105}


def test_ioi_abc_puts_a_third_name(tokenizer: FileTokenizer) -> None:
    for pair in all_pairs(get_task("ioi").generate(tokenizer, corruption="abc")):
        third = pair.slots["third"]
        assert third not in pair.clean
        assert pair.corrupted == third.join(pair.clean.rsplit(pair.slots["S"], 1))


# --- Gendered pronouns ---------------------------------------------------------------------------------------------


def test_pronouns_go_both_ways_with_a_partner_of_the_other_gender(tokenizer: FileTokenizer) -> None:
    dataset = get_task("gendered_pronoun").generate(tokenizer)
    for pairs in dataset.splits.values():
        assert Counter(pair.slots["gender"] for pair in pairs) == {"male": 35, "female": 35}
    for pair in all_pairs(dataset):
        name, other = pair.slots["name"], pair.slots["corrupted_name"]
        assert words.GENDER[name] != words.GENDER[other]
        assert pair.corrupted == pair.clean.replace(name, other)
        assert pair.correct == (" " + words.PRONOUN[words.GENDER[name]],)
        assert re.fullmatch(r"So \w+ is [a-z ]+, isn't", pair.clean)


def test_the_papers_pronoun_prompts(pythia: FileTokenizer) -> None:
    dataset = get_task("gendered_pronoun").generate_subset("paper", pythia)
    assert set(dataset.splits) == {"discover"}
    pairs = all_pairs(dataset)
    assert len({pair.clean for pair in pairs}) == 100
    assert len({pair.slots["name"] for pair in pairs}) == 20
    assert "So Paul is such a good cook, isn't" in {pair.clean for pair in pairs}
    with pytest.raises(ImpossibleRequest, match="paper"):
        get_task("gendered_pronoun").generate_subset("papers", pythia)
    with pytest.raises(ImpossibleRequest, match="none"):
        get_task("ioi").generate_subset("paper", pythia)


# --- Greater-than --------------------------------------------------------------------------------------------------


def test_greater_than_asks_for_later_years(tokenizer: FileTokenizer) -> None:
    for pair in all_pairs(get_task("greater_than").generate(tokenizer)):
        start = int(pair.slots["YY"])
        assert list(map(int, pair.correct)) == list(range(start + 1, 100))
        assert list(map(int, pair.incorrect)) == list(range(start + 1))
        century = pair.slots["XX"]
        assert pair.clean.endswith(f"from the year {century}{start:02d} to the year {century}")
        assert pair.corrupted == pair.clean.replace(f"{century}{start:02d}", f"{century}01")


def test_greater_than_is_balanced_over_start_years(tokenizer: FileTokenizer) -> None:
    for pairs in get_task("greater_than").generate(tokenizer).splits.values():
        years = Counter(int(pair.slots["YY"]) for pair in pairs)
        assert set(years) == set(range(2, 99))
        assert set(years.values()) <= {2, 3}


def test_greater_than_leaves_out_centuries_that_pythia_rarely_splits(pythia: FileTokenizer) -> None:
    pairs = all_pairs(get_task("greater_than").generate(pythia))
    centuries = Counter(pair.slots["XX"] for pair in pairs)
    assert "11" not in centuries  # 3 usable years
    assert "13" not in centuries  # 19
    assert len(centuries) >= 4
    for pair in pairs:
        pieces = [pythia.decode([i]) for i in pythia.encode(f" {pair.slots['XX']}{pair.slots['YY']}")]
        assert pieces == [" " + pair.slots["XX"], pair.slots["YY"]]


# --- Subject-verb agreement ----------------------------------------------------------------------------------------


def test_sva_turns_the_number_of_the_subject_and_of_nothing_else(tokenizer: FileTokenizer) -> None:
    dataset = get_task("sva").generate(tokenizer)
    embedded = {form for pair in (*words.RELATION_VERBS, *words.OBJECT_VERBS) for form in pair}
    for pair in all_pairs(dataset):
        changed = [(a, b) for a, b in zip(pair.clean.split(), pair.corrupted.split()) if a != b]
        subject, *rest = changed
        assert subject[0] == pair.slots["subject"]
        assert subject[0].rstrip("s") == subject[1].rstrip("s")
        assert all(set(change) <= embedded for change in rest)
        assert bool(rest) == (pair.template in ("subject_relative", "verb_coordination"))
        assert (pair.slots["number"] == "plural") == pair.slots["subject"].endswith("s")
        assert (" are" in pair.correct) == (pair.slots["number"] == "plural")
        assert not set(pair.correct) & set(pair.incorrect)


def test_sva_has_all_constructions_both_numbers_and_attractors_of_both(tokenizer: FileTokenizer) -> None:
    for pairs in get_task("sva").generate(tokenizer).splits.values():
        kinds = Counter((pair.template, pair.slots["number"]) for pair in pairs)
        assert len(kinds) == 12
        assert max(kinds.values()) - min(kinds.values()) <= 2
        attractors = [
            (p.slots["number"] == "plural", p.slots["other"].endswith("s")) for p in pairs if "other" in p.slots
        ]
        assert min(Counter(attractors).values()) > 15
        assert len(Counter(attractors)) == 4
