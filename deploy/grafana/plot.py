"""Draws the dashboards' panels from what a Prometheus has, for docs/alerts.md: the same series, without a Grafana.

    python deploy/grafana/plot.py URL START END STEP FOLDER

Reads the committed JSON, so that what is drawn is what Grafana is told to draw: queries, legends, units, thresholds and
places on the grid. START and END in seconds since 1970, STEP in seconds.
"""

from __future__ import annotations

import json
import re
import sys
import urllib.parse
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.ticker import FuncFormatter, MaxNLocator

mpl.use("agg")
mpl.rcParams |= {"font.size": 8, "axes.titlesize": 9, "axes.spines.top": False, "axes.spines.right": False}
DASHBOARDS = Path(__file__).resolve().parent / "dashboards"
COLORS = {"green": "#56a64b", "yellow": "#e0b400", "red": "#e02f44", "blue": "#3274d9"}
PALETTE = ("#56a64b", "#e0b400", "#3274d9", "#ff780a", "#a352cc", "#1f9ea8", "#e02f44", "#8f3bb8", "#96722b", "#5f6b7a")
COLUMNS = 24
INCH_PER_COLUMN, INCH_PER_ROW = 0.6, 0.3
DPI = 80
PERIODS = ((86400, "d"), (3600, "h"), (60, "min"))
Series = tuple[str, list[float], list[float]]
"""A name, times and values."""


class Source:
    """A Prometheus, and the time that is drawn."""

    def __init__(self, url: str, start: float, end: float, step: float) -> None:
        self._url, self.start, self.end, self._step = url, start, end, step

    def _ask(self, path: str, **parameters: object) -> Any:
        body = urllib.parse.urlencode(parameters).encode()
        with urllib.request.urlopen(f"{self._url}/api/v1/{path}", body) as got:  # noqa: S310 - the caller's own
            return json.load(got)["data"]["result"]

    def lines(self, target: dict[str, Any]) -> list[Series]:
        """A target's series over time."""
        found = self._ask("query_range", query=self._plain(target), start=self.start, end=self.end, step=self._step)
        return [
            (named(target, each), [t for t, _ in each["values"]], [float(v) for _, v in each["values"]])
            for each in found
        ]

    def now(self, target: dict[str, Any]) -> list[tuple[str, float]]:
        """What they are at the end."""
        found = self._ask("query", query=self._plain(target), time=self.end)
        return [(named(target, each), float(each["value"][1])) for each in found]

    def _plain(self, target: dict[str, Any]) -> str:
        """As Grafana asks: its interval is four scrapes at least."""
        query = str(target["expr"]).replace("$job", ".+").replace("$instance", ".+")
        return query.replace("$__rate_interval", f"{max(4 * self._step, 15):g}s")


def named(target: dict[str, Any], found: dict[str, Any]) -> str:
    """A series' legend."""
    return re.sub(r"{{(\w+)}}", lambda each: str(found["metric"].get(each[1], "")), target["legendFormat"])


def told(value: float, unit: str, decimals: int | None = None) -> str:
    """A value in its unit, as Grafana writes it."""
    if value != value:  # NaN: 0 of 0
        return "no data"
    if unit == "percentunit":
        return f"{value * 100:.3g} %" if decimals is None else f"{value * 100:.{decimals}f} %"
    if unit == "s":
        return seconds(value)
    if unit == "bytes":
        return f"{value / 2**20:.0f} MiB"
    suffix = {"reqps": "/s", "ops": "/s", "wps": "/s"}.get(unit, "")
    return f"{value:.3g}{suffix}"


def seconds(value: float) -> str:
    if abs(value) < 1:
        return f"{value * 1000:.3g} ms" if value else "0"
    for length, name in PERIODS:
        if abs(value) >= length:
            return f"{value / length:.1f} {name}"
    return f"{value:.3g} s"


def formatter(unit: str) -> FuncFormatter:
    return FuncFormatter(lambda value, _: told(value, unit))


def board(source: Source, read: dict[str, Any]) -> Any:
    """One dashboard as one figure."""
    high = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in read["panels"]) + 1
    figure = plt.figure(figsize=(COLUMNS * INCH_PER_COLUMN, high * INCH_PER_ROW))
    figure.text(0.005, 1 - 0.5 / high, read["title"], fontsize=12, weight="bold", va="center")
    for panel in read["panels"]:
        place = panel["gridPos"]
        top = place["y"] + 1
        if panel["type"] == "row":
            figure.text(0.005, 1 - (top + 0.6) / high, panel["title"], fontsize=10, weight="bold", va="center")
            figure.add_artist(plt.Line2D([0.005, 0.995], [1 - top / high] * 2, color="#cccccc", linewidth=0.8))
            continue
        left, right = place["x"] / COLUMNS, (place["x"] + place["w"]) / COLUMNS
        low, up = 1 - (top + place["h"]) / high, 1 - top / high
        inner = (left + 0.04, low + 2.1 / high, right - left - 0.055, up - low - 3.3 / high)
        if panel["type"] == "stat":
            stat(figure, (left + 0.006, low + 0.4 / high, right - left - 0.012, up - low - 1.7 / high), panel, source)
        else:
            timeseries(figure.add_axes(inner), panel, source)
    return figure


def timeseries(axes: Any, panel: dict[str, Any], source: Source) -> None:
    """Lines over time, stacked where the panel says so."""
    defaults = panel["fieldConfig"]["defaults"]
    found = [series for target in panel["targets"] for series in source.lines(target)]
    axes.set_title(panel["title"], loc="left")
    axes.set_xlim(source.start, source.end)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{datetime.fromtimestamp(value, UTC):%H:%M:%S}"))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.yaxis.set_major_formatter(formatter(defaults["unit"]))
    axes.grid(color="#e8e8e8", linewidth=0.6)
    if not found:
        axes.text(
            0.5, 0.5, "nothing: none happened", ha="center", va="center", transform=axes.transAxes, color="#888888"
        )
        axes.set_yticks([])
        return
    fixed = {each["matcher"]["options"]: each["properties"][0]["value"]["fixedColor"] for each in overrides(panel)}
    colors = [COLORS[fixed[name]] if name in fixed else PALETTE[n % len(PALETTE)] for n, (name, *_) in enumerate(found)]
    draw = stacked if defaults["custom"]["stacking"]["mode"] == "normal" else plain
    draw(axes, found, colors)
    most = max((value for _, _, values in found for value in values if value == value), default=0)
    axes.set_ylim(0, defaults.get("max", max(axes.get_ylim()[1], most * 1.05) or 1))
    for step in defaults["thresholds"]["steps"][1:]:
        if 0 < step["value"] < axes.get_ylim()[1]:
            axes.axhline(step["value"], color=COLORS[step["color"]], linewidth=0.8, linestyle="--")
    columns = min(len(found), 2 if panel["gridPos"]["w"] < 8 else 3 if len(found) <= 6 else 4)
    axes.legend(
        loc="upper left", bbox_to_anchor=(-0.02, -0.13), ncols=columns, frameon=False, fontsize=6.5, handlelength=1
    )


def overrides(panel: dict[str, Any]) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = panel["fieldConfig"]["overrides"]
    return made


def plain(axes: Any, found: list[Series], colors: list[str]) -> None:
    for (name, times, values), color in zip(found, colors, strict=True):
        axes.plot(times, values, color=color, linewidth=1.1, label=name or "value")
        if len(times) < 3:
            axes.plot(times, values, ".", color=color)


def stacked(axes: Any, found: list[Series], colors: list[str]) -> None:
    times = sorted({time for _, each, _ in found for time in each})
    rows = []
    for _, own, values in found:
        known = dict(zip(own, values, strict=True))
        rows.append([known.get(time, 0.0) for time in times])
    axes.stackplot(times, rows, colors=colors, alpha=0.75, labels=[name for name, *_ in found])


def stat(figure: Any, box: tuple[float, float, float, float], panel: dict[str, Any], source: Source) -> None:
    """Numbers on their thresholds' colours, side by side."""
    defaults = panel["fieldConfig"]["defaults"]
    found = [each for target in panel["targets"] for each in source.now(target)] or [("", float("nan"))]
    left, low, width, high = box
    figure.text(left, low + high + 0.004, panel["title"], fontsize=8, va="bottom")
    each = width / len(found)
    for number, (name, value) in enumerate(found):
        axes = figure.add_axes((left + number * each, low, each - 0.003, high))
        axes.set_facecolor(color_of(value, defaults))
        axes.set_xticks([])
        axes.set_yticks([])
        for spine in axes.spines.values():
            spine.set_visible(False)
        says = word(value, defaults) or told(value, defaults["unit"], defaults.get("decimals"))
        axes.text(0.5, 0.55 if name else 0.5, says, ha="center", va="center", fontsize=13, color="white", weight="bold")
        axes.text(0.5, 0.2, name, ha="center", va="center", fontsize=7.5, color="white")


def color_of(value: float, defaults: dict[str, Any]) -> str:
    if value != value:
        return "#9fa7b3"
    mapped = mapping(value, defaults)
    if mapped:
        return COLORS[mapped["color"]]
    reached = [step for step in defaults["thresholds"]["steps"] if step["value"] is None or value >= step["value"]]
    return COLORS[reached[-1]["color"]]


def word(value: float, defaults: dict[str, Any]) -> str:
    mapped = mapping(value, defaults)
    return str(mapped["text"]) if mapped else ""


def mapping(value: float, defaults: dict[str, Any]) -> dict[str, Any] | None:
    options = {name: each for all_ in defaults["mappings"] for name, each in all_["options"].items()}
    return options.get(f"{value:g}")


def draw(url: str, start: float, end: float, step: float, folder: Path, say: Callable[[str], object] = print) -> None:
    """Draws every dashboard into a PNG of its name."""
    source = Source(url, start, end, step)
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(DASHBOARDS.glob("*.json")):
        figure = board(source, json.loads(path.read_text()))
        picture = folder / f"{path.stem}.png"
        figure.savefig(picture, dpi=DPI, metadata={"Software": None})
        plt.close(figure)
        say(f"{picture}: {picture.stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    address, *numbers, place = sys.argv[1:]
    draw(address, *map(float, numbers), folder=Path(place))
