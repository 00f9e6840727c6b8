"""The task of docs/add-a-task.md works as written."""

import re
from pathlib import Path

from ontogeny.core.pairs import SPLITS, tokenize
from ontogeny.params import CorpusParams
from ontogeny.tasks import base
from ontogeny.tasks.corpus import build_corpus, load_tokenizer

PAGE = Path(__file__).parents[2] / "docs" / "add-a-task.md"


def test_the_documented_task_draws_pairs(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(base, "_TASKS", {})
    code = re.search(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
    assert code is not None
    exec(compile(code[1], str(PAGE), "exec"), {"__name__": "holder"})
    build_corpus(CorpusParams(train_tokens=50_000, held_out_tokens=1000), tmp_path)
    tokenizer = load_tokenizer(tmp_path)
    dataset = base.get_task("holder").generate(tokenizer)
    pairs = [pair for split in SPLITS for pair in dataset.splits[split]]
    assert len({pair.clean for pair in pairs}) == 3 * 70
    batch = tokenize(pairs, dataset.metric, tokenizer)
    assert [tokenizer.decode(row.tolist()) for row in batch.clean] == [pair.clean for pair in pairs]
    assert bool((batch.clean != batch.corrupted).any(dim=1).all())
    assert all(pair.slots["thing"] in pair.clean.split("The ")[1] for pair in pairs)
