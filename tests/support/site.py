"""MLflow's user interface on a store, with a browser in front of it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from ontogeny.tracking import Store, ui_command, view_addresses
from support.browser import Page, browser
from support.server import free_port

_START_S = 600
_SIZE = (1600, 1000)


@dataclass(frozen=True)
class Site:
    """A page, and the user interface that it looks at."""

    page: Page
    root: str
    addresses: dict[str, str]
    """Of the saved views, as `ontogeny ui` prints them."""
    store: Store

    def go(self, view: str) -> None:
        """Open a saved view and wait for its runs; the assistant's panel, open at first, is closed."""
        self.page.open(self.addresses[view])
        self.matching()
        self.page.until(_CLOSED_ASSISTANT, "the assistant's panel to close")

    def matching(self, count: int | None = None) -> int:
        """Wait until the interface says how many runs match: this many if given, else any."""
        wanted = r"[1-9]\d*" if count is None else str(count)
        self.page.until(f"/(^|\\s){wanted}\\s+matching runs?/.test(document.body.innerText)", f"{wanted} matching runs")
        found = re.search(r"(\d+)\s+matching runs?", self.page.text())
        assert found is not None
        return int(found[1])

    def rows(self) -> list[dict[str, str]]:
        """Cells of the table by the name of their column, the run's name as `name`, in the order on the screen."""
        return list(json.loads(self.page.run(ROWS)))

    def charts(self, lines: int, count: int = 3) -> list[dict[str, Any]]:
        """Axis, names, colours and steps of the charts, once so many of them have at least so many lines."""
        return list(json.loads(self.page.until(_CHARTS % (lines, count), f"{lines} lines in {count} charts")))

    def open_run(self, name: str) -> None:
        """From the table to a run, and to its artifacts."""
        self.page.click("[role=row] a", name)
        self.page.click("[role=tab]", "Artifacts")

    def open_file(self, folder: str | None, name: str) -> None:
        """Click a file in the tree of artifacts, its folder first if it is closed."""
        if folder is not None:
            self.page.click(f"[data-testid=artifact-tree-node][artifact-name='{folder}']")
        self.page.until(f"document.querySelector(\"[artifact-name='{name}']\") !== null", f"{name} in the tree")
        node, shown = f"[data-testid=artifact-tree-node][artifact-name='{name}']", json.dumps("/" + name)
        for seconds in (20, 240):  # the tree may move under the first click, when a picture beside it has come
            self.page.click(node)
            with suppress(AssertionError):
                self.page.until(f"document.body.innerText.includes({shown})", f"{name} opened", seconds)
                return
        raise AssertionError(f"{name} does not open. The page says: {self.page.text()[:3000]}")

    def picture_size(self) -> tuple[int, int]:
        """Width and height of the largest picture on the page, once there is one."""
        width, height = self.page.until(_LARGEST_PICTURE, "a picture")
        return width, height


_CLOSED_ASSISTANT = """(() => {
  if (!document.querySelector("[aria-label='New Chat']")) return true;
  [...document.querySelectorAll("[aria-label='Close']")].at(-1).click();
  return false;
})()"""
ROWS = """JSON.stringify((() => {
  const cells = row => Object.fromEntries([...row.querySelectorAll('[role=gridcell]')].map(
    cell => [cell.getAttribute('col-id').replaceAll('`', ''), cell.innerText]));
  const rows = [...document.querySelectorAll('.ag-center-cols-container [role=row]')];
  const by = index => [...document.querySelectorAll(`.ag-pinned-left-cols-container [row-index="${index}"] a`)];
  return rows
    .map(row => [Number(row.getAttribute('row-index')), row])
    .sort((a, b) => a[0] - b[0])
    .map(([index, row]) => ({name: (by(index)[0] || {}).innerText, ...cells(row)}));
})())"""
"""JavaScript: the table as JSON, see `Site.rows`."""
_CHARTS = """(() => {
  const charts = [...document.querySelectorAll('.js-plotly-plot')].filter(c => c.data && c.data.length >= %d);
  if (charts.length < %d) return null;
  return JSON.stringify(charts.map(c => ({
    axis: c.layout.xaxis.type,
    lines: c.data.map(line => line.name),
    colours: c.data.map(line => (line.line || {}).color || (line.marker || {}).color).filter(Boolean),
    steps: c.data.flatMap(line => [...line.x].map(Number)),
  })));
})()"""
_LARGEST_PICTURE = """(() => {
  const sizes = [...document.querySelectorAll('img')].map(i => [i.naturalWidth, i.naturalHeight]);
  const best = sizes.sort((a, b) => b[0] - a[0])[0];
  return best && best[0] > 300 ? best : null;
})()"""


@contextmanager
def site_of(store: Store) -> Iterator[Site]:
    """`ontogeny ui` on a store that is a file, and a browser in front of it."""
    assert store.database is not None
    port = free_port()
    command = ui_command(store.database.parents[1], uri=store.uri, port=port)
    environment = {k: v for k, v in os.environ.items() if k != "MLFLOW_TRACKING_URI"}
    server = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    root = f"http://127.0.0.1:{port}/"
    try:
        deadline = time.monotonic() + _START_S
        while Store(root.rstrip("/")).unreachable() is not None:
            assert server.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.5)
        with browser() as page:
            page.size(*_SIZE)
            yield Site(page, root, view_addresses(store, root), store)
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
