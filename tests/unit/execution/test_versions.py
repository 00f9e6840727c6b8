"""A change of an analysis' sources needs a decision: other numbers (raise its version) or not (accept the sources).

A role is made of the file that measures it and of what that imports of ours; the engine beneath it is held by
`behaviour`, whose version is in the fingerprint of every role. `versions.json` holds, for each analysis, its version
and a hash of the sources that it is made of, without comments, docstrings and layout. After a change run this file as
a script: it refuses to accept changed sources under an old version unless told `--same-numbers`.
"""

import ast
import hashlib
import json
import sys
from functools import cache
from pathlib import Path

import pytest
import yaml

from ontogeny.components import ROLES
from ontogeny.execution.analyses import versions

SOURCES = Path(__file__).parents[3] / "src" / "ontogeny"
ACCEPTED = Path(__file__).with_name("versions.json")
MADE_OF = {
    "training": ("models/ladder.py", "models/neox.py", "models/optimiser.py"),
    "behaviour": (
        "core/behaviour.py",
        "core/bootstrap.py",
        "core/pairs.py",
        "models/families.py",
        "models/forward.py",
        "models/functional.py",
        "models/layout.py",
        "models/readout.py",
        "models/subject.py",
        "models/weights.py",
    ),
    "scores": ("attribution", "core/graph.py", "models/backward.py"),
    "circuit": ("analysis.py", "patching", "core/circuit.py", "core/faithfulness.py"),
    "stability": ("core/stability.py", "core/bootstrap.py", "attribution"),
    "verification": ("algorithm/verification.py", "algorithm/metrics.py"),
    "algorithm": ("algorithm", "patching/path_patching.py", "components/base.py", "components/s_inhibition.py"),
    "examination": ("execution/examination.py", "tasks/probes.py"),
    "transfer": ("transfer", "execution/transfers.py", "core/circuit.py", "core/faithfulness.py"),
    "tuning": ("tuning/bench.py", "tuning/cost.py", "core/stability.py"),
}
STAGES = {"training": "checkpoints", "tuning": "tune", "transfer": "transfer"}
"""Where each is computed; all others in `analyse`."""


def sources(analysis: str) -> tuple[str, ...]:
    """Files or folders that an analysis is made of."""
    if not analysis.startswith("role "):
        return MADE_OF[analysis]
    score = ROLES[analysis.removeprefix("role ")].score
    return tuple(sorted(imported(getattr(score, "func", score).__module__)))


def imported(module: str, seen: frozenset[str] = frozenset()) -> set[str]:
    """The file of a module and, again and again, those that it imports; without those that others hold."""
    file = module.removeprefix("ontogeny.").replace(".", "/") + ".py"
    held = (
        file in MADE_OF["behaviour"]
        or file.startswith("core/")
        or file.startswith("params/")
        or file == "components/base.py"
    )
    if held or file in seen or not (SOURCES / file).exists():
        return set()
    found = {file}
    for node in ast.walk(ast.parse((SOURCES / file).read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ontogeny."):
            for name in (node.module, *(f"{node.module}.{alias.name}" for alias in node.names)):
                found |= imported(str(name), seen | found)
    return found


def essence(source: str) -> str:
    """The program without comments, docstrings and layout."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [line for line in body if not is_text(line)]  # type: ignore[attr-defined]
    return ast.dump(tree)


@cache
def file_essence(file: Path) -> str:
    return essence(file.read_text(encoding="utf-8"))


def is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def sources_hash(analysis: str) -> str:
    digest = hashlib.sha256()
    for name in sources(analysis):
        place = SOURCES / name
        for file in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
            digest.update(f"{file.relative_to(SOURCES)}\n{file_essence(file)}\n".encode())
    return digest.hexdigest()


@cache
def now() -> dict[str, dict[str, object]]:
    return {name: {"version": version, "sources": sources_hash(name)} for name, version in versions().items()}


def test_every_analysis_says_what_it_is_made_of() -> None:
    assert {*MADE_OF, *(f"role {name}" for name in ROLES)} == set(versions())
    assert [name for names in MADE_OF.values() for name in names if not (SOURCES / name).exists()] == []
    assert all(any(name.startswith("components/") for name in sources(f"role {role}")) for role in ROLES)


def test_dvc_runs_the_stage_of_every_source_that_changes() -> None:
    pipeline = yaml.safe_load((SOURCES.parents[1] / "dvc.yaml").read_text())["stages"]
    for analysis, names in ((analysis, sources(analysis)) for analysis in versions()):
        stage = pipeline[STAGES.get(analysis, "analyse")]
        watched = [dep.removeprefix("src/ontogeny/") for dep in stage["deps"]]
        assert [name for name in names if not any(Path(name).is_relative_to(dep) for dep in watched)] == []


@pytest.mark.parametrize("analysis", versions())
def test_changed_sources_were_decided_on(analysis: str) -> None:
    accepted = json.loads(ACCEPTED.read_text())[analysis]
    assert now()[analysis] == accepted, (
        f"The sources of {analysis!r} changed. If it now gives other numbers, raise its version (analysis.py or "
        f"execution/fingerprints.py) and run `python {Path(__file__).name}`; if not, run it with --same-numbers."
    )


def test_only_the_program_counts() -> None:
    plain = "def f(x):\n    return x + 1\n"
    assert essence('"""Doc."""\n# why\ndef f(x):\n    """Doc."""\n    return (x +\n        1)\n') == essence(plain)
    assert essence(plain.replace("1", "2")) != essence(plain)


def accept(same_numbers: bool) -> None:
    """Write versions.json."""
    before = json.loads(ACCEPTED.read_text()) if ACCEPTED.exists() else {}
    after = now()
    for name, entry in after.items():
        old = before.get(name, entry)
        if old["sources"] != entry["sources"] and old["version"] == entry["version"] and not same_numbers:
            sys.exit(f"{name}: sources changed under version {entry['version']}: raise it, or say --same-numbers.")
    ACCEPTED.write_text(json.dumps(after, indent=1) + "\n")


if __name__ == "__main__":
    accept(same_numbers="--same-numbers" in sys.argv[1:])
