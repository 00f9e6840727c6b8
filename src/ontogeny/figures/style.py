"""One look for all pictures: fonts, colours, the token axis, and rendering to the same bytes in every process."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import Any, Final, Literal, ParamSpec

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from ontogeny.series import scale_colours

Format = Literal["png", "svg"]
P = ParamSpec("P")

INK: Final = "#1f2430"
MUTED: Final = "#6b7280"
FAINT: Final = "#d7dbe2"
PAPER: Final = "#ffffff"
WARNING: Final = "#c2410c"
KIND_COLOURS: Final = {"q": "#0072b2", "k": "#d55e00", "v": "#009e73", "mlp": "#8a8f98", "logits": "#1f2430"}
"""Of an edge, by what reads it (Okabe and Ito's colours: told apart by colour-blind readers)."""
MARKERS: Final = "osD^vPX*hp"
MANY: Final = 8
"""Members; where there are more, lines are thinner and panels that they fill are higher."""
LINE_STYLES: Final = ("-", (0, (4, 1.5)), (0, (1.2, 1.2)), (0, (5, 1.2, 1.2, 1.2)))
SHARED: Final = ["suite", "member", "scale", "seed", "parameters", "task", "step", "tokens"]
"""Columns that rows of a checkpoint have in every figure."""
TASK_TITLES: Final = {
    "ioi": "Indirect object identification",
    "gendered_pronoun": "Gendered pronoun",
    "greater_than": "Greater-than",
    "sva": "Subject-verb agreement",
}
METRIC_LABELS: Final = {
    "ioi": "logit difference",
    "gendered_pronoun": "logit difference",
    "greater_than": "probability difference",
    "sva": "probability difference",
}
_RC: Final[Mapping[Any, Any]] = {
    "font.family": ["DejaVu Sans"],
    "font.size": 9.0,
    "axes.titlesize": 10.0,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 9.0,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 8.0,
    "ytick.labelsize": 8.0,
    "text.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.6,
    "lines.markersize": 3.8,
    "lines.markeredgewidth": 0.0,
    "figure.facecolor": PAPER,
    "savefig.facecolor": PAPER,
    "svg.fonttype": "none",
    "svg.hashsalt": "ontogeny",
    "path.simplify": True,
}


@contextmanager
def look() -> Iterator[None]:
    """Our settings, whatever the user's matplotlibrc says; put back at the end."""
    with mpl.rc_context():
        mpl.rcdefaults()
        for name, value in _RC.items():
            mpl.rcParams[name] = value
        yield


def drawn(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Decorate a drawing function: it runs with our settings and returns a figure that belongs to no window."""

    @wraps(draw)
    def inner(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with look():
            return draw(*args, **kwargs)

    return inner


def new_figure(width: float, height: float) -> Figure:
    """A figure of a size in inches, without pyplot's global state."""
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    return figure


def render(figure: Figure, kind: Format, dpi: int = 120) -> bytes:
    """The picture as a file's content; no date, no version, no random ids: the same figure gives the same bytes."""
    metadata: dict[str, Any] = {"Software": None} if kind == "png" else {"Date": None, "Creator": None}
    stream = io.BytesIO()
    with look():
        figure.savefig(stream, format=kind, dpi=dpi, metadata=metadata)
    return stream.getvalue()


def styled(rows: pd.DataFrame, everyone: pd.DataFrame) -> pd.DataFrame:
    """`rows` with the look of each member: colour and marker say the scale, dashes the seed.

    The look depends on all members of the study and not on those that happen to have a row, so it is the same in all
    pictures. The columns are `label`, `colour`, `marker`, `dashes`. Rows are put in the study's order of tasks.

    Args:
        rows: with the columns member and task.
        everyone: the study: member, scale, seed, parameters, task.
    """
    known = everyone[everyone["parameters"].notna()].drop_duplicates("member")
    colours = scale_colours(known)
    seeds = sorted(set(known["seed"]))
    places = {scale: place for place, scale in enumerate(colours)}
    look_of = pd.DataFrame(
        {
            "member": known["member"],
            "label": known["scale"] if len(seeds) == 1 else known["member"],
            "colour": [colours[scale] for scale in known["scale"]],
            "marker": [MARKERS[places[scale] % len(MARKERS)] for scale in known["scale"]],
            "dashes": [seeds.index(seed) % len(LINE_STYLES) for seed in known["seed"]],
        }
    )
    order = {task: place for place, task in enumerate(dict.fromkeys(everyone["task"]))}
    in_order = rows.sort_values("task", key=lambda tasks: tasks.map(order), kind="stable")
    return in_order.merge(look_of, on="member", how="left")


def members_in_order(rows: pd.DataFrame) -> list[str]:
    """Members from the largest scale to the smallest, then by seed."""
    order = rows.drop_duplicates("member").sort_values(["parameters", "scale", "seed"], ascending=[False, True, True])
    return [str(m) for m in order["member"]]


def member_styles(rows: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """How the line of each member is drawn, from the columns of `styled`; thinner where there are many."""
    firsts = rows.drop_duplicates("member").set_index("member").loc[members_in_order(rows)]
    widths = {"linewidth": 0.9, "markersize": 2.6} if len(firsts) > MANY else {"linewidth": 1.6, "markersize": 3.8}
    return {
        str(member): {"color": colour, "marker": marker, "linestyle": LINE_STYLES[dashes]} | widths
        for member, colour, marker, dashes in zip(firsts.index, firsts["colour"], firsts["marker"], firsts["dashes"])
    }


def member_labels(rows: pd.DataFrame) -> dict[str, str]:
    """What each member is called: its scale where there is one seed, else its name."""
    firsts = rows.drop_duplicates("member")
    return dict(zip(firsts["member"].astype(str), firsts["label"].astype(str)))


def member_handles(rows: pd.DataFrame) -> list[Line2D]:
    """Legend entries: each scale with its number of parameters if known, then each seed if there are several."""
    styles = member_styles(rows)
    firsts = rows.drop_duplicates("member").set_index("member").loc[list(styles)]
    handles: list[Line2D] = []
    for scale, parameters in zip(firsts["scale"], firsts["parameters"]):
        if not any(handle.get_gid() == scale for handle in handles):
            style = styles[firsts.index[firsts["scale"] == scale][0]]
            style |= {"linestyle": "-", "linewidth": 1.6, "markersize": 5.5}
            label = scale if pd.isna(parameters) else f"{scale} ({short(float(parameters))})"
            handles.append(Line2D([], [], **style, markeredgewidth=0, label=label, gid=scale))
    for handle in handles:
        handle.set_gid(None)
    if firsts["seed"].nunique() > 1:
        dashes = dict(sorted(zip(firsts["seed"], firsts["dashes"])))
        handles += [Line2D([], [], color=MUTED, linestyle=LINE_STYLES[d], label=f"seed {s}") for s, d in dashes.items()]
    return handles


def by_scale(rows: pd.DataFrame, said: Mapping[str, str]) -> str:
    """What is said of some members, a line a scale, the largest first; once where it is the same of all its seeds."""
    firsts, lines = rows.drop_duplicates("member").set_index("member").loc[members_in_order(rows)], []
    for scale, seeds in firsts.groupby("scale", sort=False)["seed"]:
        texts = {seed: said[str(member)] for member, seed in seeds.items() if member in said}
        names = {text: ", ".join(f"s{seed}" for seed in texts if texts[seed] == text) for text in texts.values()}
        alike = len(texts) == len(seeds) and len(names) == 1
        parts = [*names] if alike else [f"{text} ({of})" for text, of in names.items()]
        lines += [f"{scale}: {', '.join(parts)}"] if parts else []
    return "\n".join(lines)


def mark_handle(label: str, marker: str, *, colour: str = INK, filled: bool = False, size: float = 5.5) -> Line2D:
    """Legend entry of a mark without a line."""
    face = colour if filled else "none"
    return Line2D(
        [], [], linestyle="", marker=marker, markersize=size, markerfacecolor=face, markeredgecolor=colour,
        markeredgewidth=1.2 if size > 4 else 0, label=label,
    )  # fmt: skip


_LEFT, _RIGHT, _TITLE, _FOOT, _GAP, _LINE = 0.68, 0.14, 0.34, 0.30, 0.10, 0.25
"""Inches: margins of a panel, between the axes of one panel, and a line of the header."""


def panel_grid(
    tasks: Sequence[str],
    *,
    heights: Sequence[float],
    columns: int = 2,
    width: float = 9.2,
    title: str = "",
    legends: Sequence[Sequence[Line2D]] = (),
    note: str = "",
) -> tuple[Figure, dict[str, list[Axes]]]:
    """A panel a task, each a stack of axes that share their x axis; title and lines of legend above, `note` below.

    Sizes are inches and nothing is measured, so the layout is the same for every font engine.
    """
    columns = min(columns, max(1, len(tasks)))
    lines = max(1, -(-len(tasks) // columns))
    panel = _TITLE + sum(heights) + _GAP * (len(heights) - 1) + _FOOT
    entries = [line for handles in legends for line in _wrapped(handles, width)]
    head = 0.02 + _LINE * (bool(title) + len(entries))
    foot = 0.28 if note else 0.04
    total = head + lines * panel + foot
    figure = new_figure(width, total)
    if title:
        figure.text(0.12 / width, 1 - 0.10 / total, title, va="top", fontsize=11, fontweight="bold")
    for line, handles in enumerate(entries):
        top = 1 - (0.06 + _LINE * (bool(title) + line)) / total
        figure.legend(
            handles=handles, loc="upper left", bbox_to_anchor=(0.06 / width, top), ncols=len(handles),
            handlelength=2.2, columnspacing=1.6, borderaxespad=0, borderpad=0.3,
        )  # fmt: skip
    if note:
        figure.text(0.5, 0.10 / total, note, ha="center", va="bottom", fontsize=9)
    axes: dict[str, list[Axes]] = {}
    for place, task in enumerate(tasks):
        left = (place % columns) * width / columns + _LEFT
        top = total - head - (place // columns) * panel - _TITLE
        axes[task] = []
        for height in heights:
            box = (left / width, (top - height) / total, (width / columns - _LEFT - _RIGHT) / width, height / total)
            axes[task].append(figure.add_axes(box, sharex=axes[task][0] if axes[task] else None))
            top -= height + _GAP
        axes[task][0].set_title(task_title(task))
        for upper in axes[task][:-1]:
            upper.tick_params(labelbottom=False)
    return figure, axes


def _wrapped(handles: Sequence[Line2D], width: float) -> list[list[Line2D]]:
    """Legend entries in lines that fit, by the number of their letters."""
    lines: list[list[Line2D]] = []
    used = width
    for handle in handles:
        need = 0.56 + 0.072 * len(str(handle.get_label()))
        if used + need > width:
            lines.append([])
            used = 0.1
        lines[-1].append(handle)
        used += need
    return lines


def task_title(task: str) -> str:
    """A task's name for people; a task that we did not write keeps its own."""
    return TASK_TITLES.get(task, task.replace("_", " "))


def log_token_axis(axes: Axes, places: np.ndarray) -> None:
    """A logarithmic axis around these places; without any there is nothing to read off, and no tick."""
    axes.xaxis.set_minor_formatter(NullFormatter())
    if not len(places):
        axes.set_xticks([])
        return
    axes.set_xscale("log")
    low, high = float(places.min()) / 1.6, float(places.max()) * 1.6
    axes.set_xlim(low, high)
    axes.xaxis.set_major_locator(FixedLocator([t for t in _log_ticks(low, high / 1.2) if t <= high]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    axes.xaxis.set_minor_formatter(NullFormatter())


def write_within(axes: Axes, text: str) -> None:
    """A word in the middle of axes that have nothing to show."""
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=MUTED)


def token_axis(axes: Axes, tokens: Sequence[float]) -> None:
    """A logarithmic axis of training tokens that still shows step 0, at its left end.

    Linear from 0 to the first checkpoint after it, logarithmic from there.
    """
    positive = sorted(t for t in set(tokens) if t > 0)
    first, last = (positive[0], positive[-1]) if positive else (1.0, 10.0)
    axes.set_xscale("symlog", linthresh=first, linscale=0.3, subs=range(2, 10))
    starts_at_zero = min(tokens, default=0) <= 0
    axes.set_xlim(-0.12 * first if starts_at_zero else first / 1.05, last * 1.2)
    ticks = _log_ticks(first, last)
    axes.xaxis.set_major_locator(FixedLocator([0.0] * starts_at_zero + ticks))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    decades = LogLocator(numticks=20).tick_values(first, last)
    axes.xaxis.set_minor_locator(FixedLocator([m * d for d in decades for m in range(2, 10) if first < m * d <= last]))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _log_ticks(first: float, last: float) -> list[float]:
    """Decades; where they are few, parts of each as well. None right after the linear part."""
    decades = [float(t) for t in LogLocator(numticks=20).tick_values(first, last)]
    for parts, spare, enough in (((1,), 1.6, 3), ((1, 3), 1.05, 3), ((1, 2, 5), 1.05, 2)):
        inside = [m * t for t in decades for m in parts if first * spare <= m * t <= last * 1.2]
        if len(inside) >= enough:
            return inside
    return [float(t) for t in MaxNLocator(5).tick_values(first, last) if first * 1.02 <= t <= last * 1.2] or [first]


TOKENS_NOTE: Final = "training tokens (logarithmic)"


def fraction_axis(axes: Axes) -> None:
    """A logarithmic axis of shares, in per cent."""
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))
    axes.xaxis.set_minor_locator(NullLocator())


def short(number: float) -> str:
    """1536 -> 1.5K, 4.6e6 -> 4.6M, 2.1e11 -> 210B."""
    for size, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K")):
        if abs(number) >= size:
            return f"{number / size:.3g}{letter}" if abs(number) / size < 1000 else f"{number / size:.0f}{letter}"
    return f"{number:g}"


def node_label(name: str) -> str:
    """`a5.h2` -> ``5.2``, `m3` -> ``MLP 3``."""
    if name.startswith("a"):
        return name.removeprefix("a").replace(".h", ".")
    return f"MLP {name[1:]}" if name.startswith("m") else name
