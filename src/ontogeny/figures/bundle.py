"""The pictures of one checkpoint and task as one file: drawn by a worker, cached by fingerprint, shown by MLflow.

A bundle is a zip archive without times, so that the same analysis gives the same bytes.
"""

from __future__ import annotations

import html
import io
import zipfile

import pandas as pd

from ontogeny.core.results import IOI, CheckpointAnalysis
from ontogeny.figures.algorithm_circuit import draw_algorithm_circuit, member_rows
from ontogeny.figures.curve import curve_rows, draw_curve
from ontogeny.figures.diagram import diagram_rows, draw_diagram
from ontogeny.figures.roles import checkpoint_map_rows, draw_role_map
from ontogeny.figures.style import render

VERSION = 3
"""Part of the cache key: raised when the pictures change."""
_DPI = 90
_EPOCH = (1980, 1, 1, 0, 0, 0)


def draw_bundle(analysis: CheckpointAnalysis, task: str) -> bytes:
    """Pictures of one task at one checkpoint, as far as there is something to show.

    circuit.png, circuit.svg, circuit.html (the picture and the table of edges in one self-contained file),
    faithfulness.svg; roles/roles.png: who holds which role; for IOI algorithm/circuit.png: the circuit as roles.
    """
    files: dict[str, bytes] = {}
    edges, curve = diagram_rows(analysis, task), curve_rows(analysis, task)
    if len(edges):
        figure = draw_diagram(edges)
        files["circuit.png"] = render(figure, "png", _DPI)
        files["circuit.svg"] = render(figure, "svg")
        files["circuit.html"] = _page(edges, files["circuit.svg"].decode()).encode()
    if (curve["part"] == "circuit").any():
        files["faithfulness.svg"] = render(draw_curve(curve), "svg")
    if analysis.roles:
        files["roles/roles.png"] = _role_picture(analysis)
    if task == IOI and analysis.algorithm is not None and analysis.algorithm.status == "measured":
        files["algorithm/circuit.png"] = render(draw_algorithm_circuit(member_rows(analysis)), "png", _DPI)
    return zipped(files)


_LAST_ROLES: dict[tuple[str, int, str], bytes] = {}


def _role_picture(analysis: CheckpointAnalysis) -> bytes:
    """The map of roles of one checkpoint: drawn once for all its tasks, which come one after the other."""
    ref = analysis.ref
    key = (ref.member, ref.step, repr(analysis.holders))
    if key not in _LAST_ROLES:
        _LAST_ROLES.clear()
        _LAST_ROLES[key] = render(draw_role_map(checkpoint_map_rows(analysis)), "png", _DPI)
    return _LAST_ROLES[key]


def open_bundle(bundle: bytes) -> dict[str, bytes]:
    """Content of each file by name."""
    with zipfile.ZipFile(io.BytesIO(bundle)) as archive:
        return {name: archive.read(name) for name in sorted(archive.namelist())}


def zipped(files: dict[str, bytes]) -> bytes:
    """The same files as one archive."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name, date_time=_EPOCH), content)
    return stream.getvalue()


_STYLE = """
body { font: 14px/1.45 system-ui, sans-serif; color: #1f2430; margin: 24px; max-width: 1200px; }
svg { max-width: 100%; height: auto; }
table { border-collapse: collapse; margin-top: 12px; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: 3px 14px 3px 0; border-bottom: 1px solid #e5e7eb; }
td.number { text-align: right; }
"""


def _page(edges: pd.DataFrame, svg: str) -> str:
    """The picture and every edge by |score|."""
    who = edges.iloc[0]
    picture = svg[svg.index("<svg") :]
    total = float(edges["score"].abs().sum()) or 1.0
    lines = "".join(
        f"<tr><td>{html.escape(edge)}</td><td>{kind}</td><td class=number>{score:+.4g}</td>"
        f"<td class=number>{100 * abs(score) / total:.1f} %</td></tr>"
        for edge, kind, score in zip(edges["edge"], edges["kind"], edges["score"])
    )
    title = html.escape(f"{who['task']} circuit of {who['member']} at step {who['step']}")
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title><style>{_STYLE}</style>"
        f"<h1>{title}</h1>{picture}"
        "<p>An edge runs from what a node writes to what another reads: aL.hH is head H of layer L, with its query "
        "&lt;q&gt;, key &lt;k&gt; or value &lt;v&gt;; mL an MLP. A positive score: corrupting the edge is predicted "
        "to lower the metric, so the edge helps.</p>"
        f"<table><thead><tr><th>edge</th><th>into</th><th>score</th><th>share</th></tr></thead><tbody>{lines}"
        "</tbody></table></html>\n"
    )
