"""The command line: `ontogeny study`, `publish`, `summary`, `ui`, and `stage`, which dvc.yaml calls.

Exit codes: 0 done; 2 refused, before any work; 3 done, but a job failed or something is not yet published; 4 done,
but checkpoints are not what they should be (only with `--strict`); 1 anything else.
Heavy imports happen inside the commands.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ontogeny.core.errors import OntogenyError

if TYPE_CHECKING:
    from ontogeny.stages.study import Study

REFUSED = 2
INCOMPLETE = 3
SUSPECT = 4
QUIET = {
    "DO_NOT_TRACK": "1",
    "DVC_NO_ANALYTICS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "RAY_USAGE_STATS_ENABLED": "0",
    "WANDB_DISABLED": "true",
}
"""Environment variables that keep telemetry off."""

log = logging.getLogger("ontogeny")
app = typer.Typer(
    help="Follow the mechanisms of language models through training and across scale.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
tune_app = typer.Typer(help="Which settings find small, faithful, cheap circuits?", no_args_is_help=True)
app.add_typer(tune_app, name="tune")
ProfileOption = Annotated[str | None, typer.Option("--profile", help="A file of params/, as for `study`.")]
Profile = Annotated[
    str | None,
    typer.Argument(
        help="A file of params/ (quick, full, ...). Without it: the project's own params.yaml.", metavar="[PROFILE]"
    ),
]

Strict = Annotated[
    bool, typer.Option("--strict", help="Exit code 4 if checkpoints are duplicates, not finite, or of another shape.")
]


def main() -> None:
    """Entry point of the console script."""
    _quiet_telemetry()
    try:
        app()
    except OntogenyError as error:
        typer.echo(f"ontogeny: {error}", err=True)
        sys.exit(REFUSED)
    except KeyboardInterrupt:
        typer.echo("ontogeny: interrupted; the next run goes on from here.", err=True)
        sys.exit(130)
    except Exception as error:
        from ontogeny.execution.disk import is_full

        if not is_full(error):
            raise
        where = f" ({error.filename})" if isinstance(error, OSError) and error.filename else ""
        typer.echo(
            f"ontogeny: the disk is full{where}: make room and run the same again; what is done is kept.", err=True
        )
        sys.exit(1)


@app.callback()
def _options(quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only warnings and errors.")] = False) -> None:
    _start_logging(logging.WARNING if quiet else logging.INFO)


@app.command()
def study(
    profile: Profile = None,
    params: Annotated[Path | None, typer.Option(help="A params file of your own, run as a profile.")] = None,
    until: Annotated[
        str | None, typer.Option(help="Stop after this stage of dvc.yaml, without publishing; see `work`.")
    ] = None,
    strict: Strict = False,
    anyway: Annotated[bool, typer.Option("--anyway", help="Start what `ontogeny plan` says does not fit.")] = False,
) -> None:
    """Check the params, bring everything up to date, publish to MLflow, and print the summary."""
    from ontogeny.execution.disk import full_disk, hardly_any_left
    from ontogeny.execution.locks import held
    from ontogeny.stages import reproduce
    from ontogeny.stages.check import check_machine, check_params, check_suite
    from ontogeny.stages.plan import check_fits
    from ontogeny.stages.study import stages_until
    from ontogeny.tracking import open_store

    targets = () if until is None else stages_until(until)
    chosen = _open(profile, params, prepare=True)
    check_params(chosen.params)
    check_machine(chosen.params)
    check_suite(chosen)
    if not anyway:
        check_fits(chosen)
    open_store(chosen.places.project, chosen.params.tracking.uri).refuse_newer()
    if not chosen.places.is_profile and reproduce.differs_from_head(chosen.places.project, "params.yaml"):
        log.info("params.yaml differs from git's HEAD; `git checkout params.yaml` restores it.")
    with held(chosen.places.lock("study"), "ontogeny study"):
        started = time.monotonic()
        code = reproduce.reproduce(chosen, targets)
        if code != 0:
            if hardly_any_left(chosen.places.study):
                raise full_disk(str(chosen.places.study))
            typer.echo("ontogeny: the pipeline stopped, see above; what is done is kept.", err=True)
            raise typer.Exit(1)
        if until is not None:
            return
        reproduced = time.monotonic()
        published = _publish(chosen)
        seconds = {"pipeline": reproduced - started, "publishing and its pictures": time.monotonic() - reproduced}
    complete = _summary(chosen, seconds)
    _audit(chosen, strict)
    raise typer.Exit(0 if published and complete else INCOMPLETE)


@app.command()
def plan(
    profile: Profile = None,
    params: Annotated[Path | None, typer.Option(help="A params file of your own, as for `study`.")] = None,
) -> None:
    """Say what a study would take: download, disk, memory, passes, time; exit code 2 if it does not fit here."""
    from ontogeny.stages.check import check_machine, check_params, check_suite
    from ontogeny.stages.plan import print_plan

    chosen = _open(profile, params, as_in_file=True)
    check_params(chosen.params)
    check_machine(chosen.params)
    check_suite(chosen)
    if not print_plan(chosen):
        raise typer.Exit(REFUSED)


@app.command()
def stage(
    name: Annotated[str, typer.Argument(help="A stage of dvc.yaml.")],
    item: Annotated[str | None, typer.Argument(help="The task or member of a matrix stage.")] = None,
) -> None:
    """Run one stage in the current folder (dvc.yaml calls this)."""
    from ontogeny.execution.lifeline import die_with_dvc
    from ontogeny.stages.study import run_stage

    die_with_dvc()
    run_stage(name, item, Path.cwd())


@app.command()
def work(
    stage: Annotated[str, typer.Argument(help="checkpoints, analyse or transfer.")],
    shard: Annotated[str, typer.Option(help="i/n: do the jobs i, i + n, i + 2 n, ... (i from 0).")] = "0/1",
    profile: ProfileOption = None,
) -> None:
    """Do a share of a stage's jobs into the shared cache, e.g. in a Slurm array; `study` then puts them together."""
    from ontogeny.stages.check import check_machine
    from ontogeny.stages.work import parse_shard, run_shard

    part, chosen = parse_shard(shard), _open(profile)
    check_machine(chosen.params)
    if not run_shard(chosen, stage, part):
        raise typer.Exit(INCOMPLETE)


@app.command()
def publish(
    profile: Profile = None,
    uri: Annotated[
        str | None,
        typer.Option(help="Another store: sqlite:////PATH/mlflow.db, a database, or http://HOST:PORT."),
    ] = None,
) -> None:
    """Put all records of a study into MLflow; what is there already is left alone."""
    if uri is not None:
        os.environ["MLFLOW_TRACKING_URI"] = uri
    if not _publish(_open(profile)):
        raise typer.Exit(INCOMPLETE)


@app.command()
def compare(
    a: Annotated[str, typer.Argument(help="`.`, a profile, a folder, a git revision or a DVC experiment.")],
    b: Annotated[str, typer.Argument(help="The same, for the other study.")],
    csv: Annotated[Path | None, typer.Option(help="Write every common checkpoint to this CSV file.")] = None,
    picture: Annotated[Path | None, typer.Option(help="Draw both over training (.png or .svg).")] = None,
) -> None:
    """Lay two studies side by side: metrics, onsets, sizes, and how alike their circuits are."""
    from ontogeny.stages.compare import check_picture, compare_studies, print_comparison, write_csv, write_picture

    chosen = _open(None)
    if picture is not None:
        check_picture(picture)
    found = compare_studies(chosen, (a, b))
    print_comparison(found)
    if csv is not None:
        write_csv(found, csv)
    if picture is not None:
        write_picture(found, picture, chosen.params.figures.dpi)


@app.command()
def series(
    file: Annotated[Path, typer.Argument(help="CSV: model, step, tokens, task, metric, value, stderr.")],
    columns: Annotated[
        list[str] | None, typer.Option("--map", help="OURS=THEIRS,...: columns that have other names.")
    ] = None,
    constants: Annotated[
        list[str] | None, typer.Option("--set", help="OURS=VALUE,...: columns that the file lacks.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for tables and pictures; default series-NAME.")] = None,
    tokens_per_step: Annotated[
        float | None, typer.Option(help="Training tokens of a step; Pythia's are known.")
    ] = None,
    rule: Annotated[str, typer.Option(help="base_33, or cot_33 (circuits-over-time).")] = "base_33",
    chance: Annotated[float, typer.Option(help="Value without ability, where no checkpoint is early enough.")] = 0.0,
    sizes: Annotated[str, typer.Option(help="Metrics that are sizes: fluctuation, not onset.")] = "edges,nodes,size",
) -> None:
    """When abilities appear in anybody's checkpoints, how models differ, and how sizes fluctuate."""
    from ontogeny.stages.check import check_folder
    from ontogeny.stages.series import examine, parse_pairs, rule_params, write_findings
    from ontogeny.stages.series_shown import print_findings

    folder = out or Path(f"series-{file.stem}")
    check_folder(folder, "--out")
    found = examine(
        file,
        rule_params(rule),
        columns=parse_pairs(columns or [], "--map"),
        constants=parse_pairs(constants or [], "--set"),
        tokens_per_step=tokens_per_step,
        chance=chance,
        sizes=[name.strip() for name in sizes.split(",")],
    )
    print_findings(found, write_findings(found, folder))


@app.command()
def doctor(profile: Profile = None) -> None:
    """Check what a study needs on this machine, and say what to do; exit code 2 if something would stop it."""
    from ontogeny.stages.doctor import examine, print_findings

    if not print_findings(examine(_root(), profile, QUIET)):
        raise typer.Exit(REFUSED)


@app.command()
def summary(profile: Profile = None) -> None:
    """Print what a study found."""
    if not _summary(_open(profile)):
        raise typer.Exit(INCOMPLETE)


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="A new folder, or one with an earlier report.")],
    profile: ProfileOption = None,
    member: Annotated[
        list[str] | None, typer.Option(help="Also the pictures of this member alone; may be repeated.")
    ] = None,
) -> None:
    """Write a study's verdicts, tables, pictures, settings and hashes into a folder, to keep or to show."""
    from ontogeny.stages.report import write_report

    typer.echo(write_report(_open(profile), folder, member or ()))


@app.command()
def audit(profile: Profile = None, strict: Strict = False) -> None:
    """Print which checkpoints are not what they should be: duplicates, not finite, of another shape or config."""
    if _audit(_open(profile), strict):
        typer.echo("Nothing is wrong with the checkpoints.")


@app.command()
def ui(
    port: Annotated[int, typer.Option(help="Port on this machine.")] = 5000,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
) -> None:
    """Open MLflow's user interface on this project's store."""
    from ontogeny.tracking import ui_command

    study = _open(None)
    command = ui_command(study.places.project, uri=study.params.tracking.uri, host=host, port=port)
    os.execvp(command[0], list(command))


@tune_app.command("run")
def tune_run(
    task: Annotated[str, typer.Argument(help="A task of the study.")],
    mode: Annotated[str, typer.Option(help="multi (edges, passes, faithfulness), single (edges), or grid.")] = "multi",
    trials: Annotated[int, typer.Option(help="Finished trials at the end; a grid is done whole.")] = 40,
    jobs: Annotated[int | None, typer.Option(help="Worker processes; default: one a core.")] = None,
    name: Annotated[str | None, typer.Option(help="Of the study; default: STUDY-TASK-MODE.")] = None,
    checkpoint: Annotated[
        list[str] | None, typer.Option(help="MEMBER@STEP, MEMBER@last or MEMBER@60%; may be repeated.")
    ] = None,
    storage: Annotated[str | None, typer.Option(help="A database's URL; default: a journal under .cache.")] = None,
    profile: ProfileOption = None,
) -> None:
    """Search settings that find small, faithful, cheap circuits; a study that was interrupted goes on."""
    from ontogeny.stages.studies import publish_search, run_search
    from ontogeny.stages.studies_shown import print_study

    chosen = _open(profile)
    record = run_search(
        chosen, task, mode, name=name, trials=trials, workers=jobs, checkpoints=checkpoint or (), storage=storage
    )
    print_study(record)
    if not publish_search(chosen, record.name):
        raise typer.Exit(INCOMPLETE)


@tune_app.command("show")
def tune_show(
    name: Annotated[str | None, typer.Argument(help="A study over settings; default: list them.")] = None,
    trial: Annotated[int | None, typer.Option(help="One of its trials.")] = None,
    profile: ProfileOption = None,
) -> None:
    """What a study over settings found."""
    from ontogeny.records.tuning import read_tuning
    from ontogeny.stages.studies import find_study
    from ontogeny.stages.studies_shown import print_studies, print_study

    chosen = _open(profile)
    if name is None:
        print_studies(chosen)
    else:
        print_study(read_tuning(find_study(chosen, name)), trial)


@tune_app.command("adopt")
def tune_adopt(
    name: Annotated[str, typer.Argument(help="A study over settings.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show the difference.")] = False,
    profile: ProfileOption = None,
) -> None:
    """Write the setting that a study recommends into params.yaml (or the profile's file), and show the difference."""
    from ontogeny.stages.adopt import adopt
    from ontogeny.stages.reproduce import profile_file

    chosen = _open(profile)
    project = chosen.places.project
    file = project / "params.yaml" if profile is None else profile_file(project, profile)
    difference = adopt(chosen, name, file, write=not dry_run)
    typer.echo(difference or f"{file.name} says so already.")


def _open(profile: str | None, params: Path | None = None, *, prepare: bool = False, as_in_file: bool = False) -> Study:
    """The study that the arguments name.

    With `prepare`, a profile's folder is made or brought up to date; with `as_in_file`, it need not be there.
    """
    from ontogeny.execution.places import places_at
    from ontogeny.params import load_params
    from ontogeny.stages.check import check_study_name
    from ontogeny.stages.reproduce import prepare_profile, profile_file
    from ontogeny.stages.study import Study, open_study

    places = places_at(_root())
    if profile is not None and params is not None:
        raise OntogenyError("Give a profile or --params, not both.")
    if profile is None and params is None:
        return open_study(places.study)
    file = params if params is not None else profile_file(places.project, str(profile))
    chosen = places.profile(file.stem)
    if as_in_file:
        return Study(load_params(file), chosen)
    if prepare:
        check_study_name(load_params(file), file, places.project)
        prepare_profile(chosen, file)
    return open_study(chosen.study)


def _root() -> Path:
    """The folder that we are in, which must be a project's."""
    if not Path("dvc.yaml").exists():
        raise OntogenyError(f"{Path.cwd()} has no dvc.yaml: run this in the root of the project.")
    return Path.cwd()


def _publish(study: Study) -> bool:
    """Publish; whether everything is published now."""
    from ontogeny.stages.publish import publish_study

    return publish_study(study).complete


def _summary(study: Study, seconds: Mapping[str, float] | None = None) -> bool:
    """Print the summary; whether everything is there."""
    from ontogeny.stages.summary import print_summary

    return print_summary(study, seconds)


def _audit(study: Study, strict: bool) -> bool:
    """Print what is wrong with checkpoints; whether nothing is. With `strict` something wrong ends the command."""
    from ontogeny.stages.audit import print_audit

    sound = print_audit(study)
    if strict and not sound:
        raise typer.Exit(SUSPECT)
    return sound


def _quiet_telemetry() -> None:
    """Nothing is sent anywhere, unless the user has said otherwise."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)


def _start_logging(level: int) -> None:
    """Plain lines, or coloured ones on a terminal; other packages only warn."""
    handler: logging.Handler
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.logging import RichHandler

        handler = RichHandler(
            console=Console(stderr=True), show_path=False, show_level=False, log_time_format="%H:%M:%S"
        )
    else:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("ontogeny").setLevel(level)
