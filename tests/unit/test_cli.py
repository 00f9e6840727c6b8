"""The command line: quick to start, and it refuses bad input before any work."""

import errno
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import yaml

from ontogeny import cli

ROOT = Path(__file__).parents[2]


def ontogeny(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ontogeny", *arguments]
    return subprocess.run(
        command, cwd=folder, env=os.environ | environment, capture_output=True, text=True, check=False
    )


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder that looks like the project's root, with nothing made yet."""
    for name in ("dvc.yaml", "params.yaml", ".dvcignore"):
        shutil.copy(ROOT / name, tmp_path / name)
    shutil.copytree(ROOT / "params", tmp_path / "params")
    return tmp_path


def everything(folder: Path) -> set[Path]:
    return {path.relative_to(folder) for path in folder.rglob("*")}


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys, contextlib, io\n"
        "from ontogeny.cli import app\n"
        "with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()) as text: app(['--help'])\n"
        "assert 'study' in text.getvalue()\n"
        "print([m for m in ('torch', 'pandas', 'mlflow', 'transformers', 'pydantic', 'dvc') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "command", ["study", "plan", "stage", "work", "publish", "compare", "doctor", "summary", "ui", "tune"]
)
def test_every_command_explains_itself(command: str) -> None:
    done = ontogeny(ROOT, command, "--help")
    assert done.returncode == 0
    assert "Usage" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["study", "gigantic"], "no profile 'gigantic' in params/; choose from"),
        (["plan", "gigantic"], "no profile 'gigantic' in params/; choose from"),
        (["stage", "cooking"], "no stage 'cooking'; choose from corpus, datasets"),
        (["stage", "datasets"], "needs an item"),
        (["stage", "corpus", "ioi"], "has no items"),
        (["study", "--until", "cooking"], "no stage 'cooking'; choose from corpus, datasets"),
        (["work", "analyse", "--shard", "4/4"], "--shard 4/4: expected i/n with i from 0 to n - 1"),
        (["work", "tune"], "no work to share in a stage 'tune'; choose from checkpoints, analyse"),
        (["study", "tiny", "--params", "params/tiny.yaml"], "not both"),
        (["study", "--params", "nowhere.yaml"], "nowhere.yaml does not exist"),
        (["study", "--params", "params.yaml"], "tracking.study: 'default' is the name of the study in params.yaml"),
        (["tune", "run", "chess"], "no task 'chess' in this study; choose from ioi"),
        (["tune", "run", "ioi"], "data/tasks/ioi/dataset.json does not exist: run `make study`"),
        (["tune", "show", "nothing"], "no study over settings 'nothing'; there are: none"),
        (["tune", "adopt", "nothing"], "no study over settings 'nothing'; there are: none"),
        (["summary"], "data/analyses/tiny-s0/manifest.json does not exist: run `make study`"),
    ],
)
def test_bad_arguments_are_refused(project: Path, arguments: list[str], said: str) -> None:
    before = everything(project)
    done = ontogeny(project, *arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert everything(project) == before


@pytest.mark.parametrize(
    ("section", "key", "value", "said"),
    [
        ("analyse", "attributoin", {}, "analyse.attributoin: unknown key"),
        ("datasets", "tasks", ["chess"], "no task 'chess'"),
        ("tune", "target", 2.0, "tune.target: Input should be less than 1"),
    ],
)
def test_bad_params_are_refused_before_any_work(
    project: Path, section: str, key: str, value: object, said: str
) -> None:
    data = yaml.safe_load((project / "params.yaml").read_text())
    data[section][key] = value
    (project / "params.yaml").write_text(yaml.safe_dump(data))
    before = everything(project)
    done = ontogeny(project, "study")
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert everything(project) == before


def test_a_store_of_a_newer_mlflow_is_refused_before_any_work(project: Path) -> None:
    database = project / "mlruns" / "mlflow.db"
    database.parent.mkdir()
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("create table alembic_version (version_num text)")
        connection.execute("insert into alembic_version values ('ffffffffffff')")
        connection.commit()
    before = everything(project)
    done = ontogeny(project, "study", MLFLOW_TRACKING_URI=f"sqlite:///{database}")
    assert done.returncode == 2
    assert "was written by a newer MLflow" in done.stderr
    assert everything(project) == before


def test_outside_a_project_it_says_where_to_go(tmp_path: Path) -> None:
    done = ontogeny(tmp_path, "study")
    assert done.returncode == 2
    assert "run this in the root of the project" in done.stderr


def test_telemetry_is_off_unless_the_user_turned_it_on() -> None:
    code = "import os; from ontogeny.cli import _quiet_telemetry as q; q(); print(os.environ['{}'])"
    for name, chosen, expected in [("DVC_NO_ANALYTICS", None, "1"), ("MLFLOW_DISABLE_TELEMETRY", "false", "false")]:
        environment = {k: v for k, v in os.environ.items() if k != name} | ({name: chosen} if chosen else {})
        done = subprocess.run(
            [sys.executable, "-c", code.format(name)], env=environment, capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == expected


FULL = os.strerror(errno.ENOSPC)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "no", "data/big.bin"), "the disk is full (data/big.bin): make room"),
        (shutil.Error([("a", "b", f"[Errno {errno.ENOSPC}] {FULL}: 'a' -> 'b'")]), "the disk is full: make room"),
        (RuntimeError(f"I/O error: {FULL} (os error {errno.ENOSPC})"), "the disk is full: make room"),
    ],
)
def test_a_full_disk_is_said_whoever_noticed_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception, said: str
) -> None:
    monkeypatch.setattr(cli, "app", failing(error))
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    assert said in capsys.readouterr().err


def test_other_errors_are_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "app", failing(OSError(errno.EACCES, "no", "data/big.safetensors")))
    with pytest.raises(PermissionError):
        cli.main()


def failing(error: Exception) -> Callable[[], None]:
    def app() -> None:
        raise error

    return app
