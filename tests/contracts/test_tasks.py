"""What every task promises, for the ladder's tokenizer and for Pythia's. A new task passes this file unchanged."""

import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from ontogeny.core.errors import ImpossibleRequest
from ontogeny.core.pairs import SPLITS, TaskDataset, Tokenizer, tokenize
from ontogeny.params import CorpusParams
from ontogeny.tasks import Task, get_task, task_names
from ontogeny.tasks.corpus import build_corpus, load_tokenizer
from ontogeny.tasks.tokenizer import FileTokenizer

PYTHIA = Path(__file__).parents[2].parent / "shared" / "pythia" / "20B_tokenizer.json"


@pytest.fixture(scope="module")
def ladder_tokenizer_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("tokenizer")
    build_corpus(CorpusParams(train_tokens=1000, held_out_tokens=1000), directory)
    return directory


@pytest.fixture(scope="module", params=["ladder", "pythia"])
def tokenizer(request: pytest.FixtureRequest, ladder_tokenizer_dir: Path) -> Tokenizer:
    if request.param == "ladder":
        return load_tokenizer(ladder_tokenizer_dir)
    if not PYTHIA.exists():
        pytest.skip(f"Pythia's tokenizer is not at {PYTHIA}")
    return FileTokenizer(PYTHIA)


@pytest.fixture(params=task_names())
def task(request: pytest.FixtureRequest) -> Task:
    return get_task(request.param)


@pytest.fixture
def dataset(task: Task, tokenizer: Tokenizer) -> TaskDataset:
    return task.generate(tokenizer)


class Letters:
    """A tokenizer that knows single characters only: no word of any task is one token."""

    digest = "letters"

    def encode(self, text: str) -> list[int]:
        return [ord(letter) for letter in text]

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(map(chr, ids))


class Unknown(Letters):
    """Every word is the same stand-in, one token long, as where a vocabulary knows none of the words."""

    def encode(self, text: str) -> list[int]:
        return [0] * len(text.split())


def test_every_split_has_the_tasks_size(task: Task, dataset: TaskDataset) -> None:
    assert {split: len(pairs) for split, pairs in dataset.splits.items()} == dict.fromkeys(SPLITS, task.size)


def test_splits_are_disjoint_and_prompts_distinct(dataset: TaskDataset) -> None:
    clean = [pair.clean for pairs in dataset.splits.values() for pair in pairs]
    assert len(set(clean)) == len(clean)


def test_pairs_can_be_tokenised_and_differ(dataset: TaskDataset, tokenizer: Tokenizer) -> None:
    for pairs in dataset.splits.values():
        batch = tokenize(pairs, dataset.metric, tokenizer)
        assert bool((batch.clean != batch.corrupted).any(dim=1).all())
        for row, length, pair in zip(batch.clean, batch.lengths, pairs):
            assert tokenizer.decode(row[:length].tolist()) == pair.clean


def test_answers_are_one_known_token_and_no_token_is_right_and_wrong(
    dataset: TaskDataset, tokenizer: Tokenizer
) -> None:
    for pairs in dataset.splits.values():
        for pair in pairs:
            assert pair.correct
            assert not set(pair.correct) & set(pair.incorrect)
            for answer in (*pair.correct, *pair.incorrect):
                ids = tokenizer.encode(answer)
                assert len(ids) == 1
                assert tokenizer.decode(ids) == answer


def test_an_answer_can_follow_the_prompt_as_a_token_of_its_own(dataset: TaskDataset, tokenizer: Tokenizer) -> None:
    for pair in dataset.splits["discover"][:20]:
        ids = tokenizer.encode(pair.clean)
        assert any(tokenizer.encode(pair.clean + a) == ids + tokenizer.encode(a) for a in pair.correct)


def test_every_template_and_slot_is_named(dataset: TaskDataset) -> None:
    for pairs in dataset.splits.values():
        assert all(pair.template for pair in pairs)
        assert len({tuple(sorted(pair.slots)) for pair in pairs if pair.template == pairs[0].template}) == 1


def test_splits_have_the_same_templates(dataset: TaskDataset) -> None:
    templates = [{pair.template for pair in pairs} for pairs in dataset.splits.values()]
    assert len(set.intersection(*templates)) >= 2 / 3 * len(set.union(*templates))


def test_same_arguments_same_data_another_seed_other_data(task: Task, tokenizer: Tokenizer) -> None:
    assert task.generate(tokenizer, seed=1).digest == task.generate(tokenizer, seed=1).digest
    assert task.generate(tokenizer, seed=1).digest != task.generate(tokenizer, seed=2).digest


def test_same_data_in_another_process(task: Task, ladder_tokenizer_dir: Path) -> None:
    code = (
        "from pathlib import Path; from ontogeny.tasks import get_task;"
        "from ontogeny.tasks.corpus import load_tokenizer;"
        f"print(get_task({task.name!r}).generate(load_tokenizer(Path({str(ladder_tokenizer_dir)!r})), 20).digest)"
    )
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert there == task.generate(load_tokenizer(ladder_tokenizer_dir), 20).digest


def test_every_corruption_works_and_makes_other_data(task: Task, tokenizer: Tokenizer) -> None:
    digests = {task.generate(tokenizer, 10, corruption=name).digest for name in task.corruptions}
    assert len(digests) == len(task.corruptions)
    assert task.generate(tokenizer, 10).corruption == task.corruptions[0]


def test_drawing_does_not_touch_the_global_generator(task: Task, tokenizer: Tokenizer) -> None:
    random.seed(0)
    before = random.getstate()
    task.generate(tokenizer, 10)
    assert random.getstate() == before


@pytest.mark.parametrize("size", [0, 1_000_000])
def test_impossible_sizes_are_refused_with_counts(task: Task, tokenizer: Tokenizer, size: int) -> None:
    with pytest.raises(ImpossibleRequest, match=r"\d"):
        task.generate(tokenizer, size)


def test_unknown_corruption_is_refused_and_the_known_ones_named(task: Task, tokenizer: Tokenizer) -> None:
    with pytest.raises(ImpossibleRequest, match=task.corruptions[0]):
        task.generate(tokenizer, corruption="upside_down")


@pytest.mark.parametrize("useless", [Letters(), Unknown()], ids=["letters", "unknown"])
def test_a_tokenizer_without_the_words_is_refused(task: Task, useless: Tokenizer) -> None:
    with pytest.raises(ImpossibleRequest):
        task.generate(useless)
