"""The figures as pictures: `bench.svg` and `growth.svg`, for docs/performance.md."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot as plt

mpl.use("svg")
mpl.rcParams |= {"svg.hashsalt": "artstore", "svg.fonttype": "none", "font.size": 9}
WITHOUT_DATE = {"Date": None}
"""A second run's file differs in its figures only."""


def bench(found: Mapping[str, Any], path: Path) -> None:
    """Each row that has a floor, as a multiple of it, with the bounds that it promises."""
    rows = [row for row in found["rows"] if row["times_floor"] and row["times_floor"] < 20]
    bounds = {check["name"].partition(" ÷ ")[0]: check for check in found["checks"]}
    figure, axes = plt.subplots(figsize=(8, 0.35 * len(rows) + 1))
    names = [row["name"] for row in rows]
    axes.barh(names, [row["times_floor"] for row in rows], color="#4878a8", height=0.6)
    for place, name in enumerate(names):
        if name in bounds:
            axes.plot([bounds[name]["must"]] * 2, [place - 0.4, place + 0.4], color="#b04040", linewidth=2)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.invert_yaxis()
    axes.set_xlabel("CPU as a multiple of the row's floor (red: what it must stay under)")
    save(figure, path)


def growth(lines: Mapping[str, Any], path: Path) -> None:
    """CPU per token against the size of each thing that grows, as a multiple of the smallest."""
    figure, axes = plt.subplots(figsize=(8, 4))
    for what, points in lines.items():
        shown = [(point["size"], point["times_first"]) for point in points if point["times_first"]]
        axes.plot(*zip(*shown, strict=True), marker="o", label=what)
    axes.set_xscale("log")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("how many there are")
    axes.set_ylabel("CPU per token ÷ that of the smallest")
    axes.legend()
    save(figure, path)


def save(figure: Any, path: Path) -> None:
    figure.tight_layout()
    figure.savefig(path, metadata=WITHOUT_DATE)
    plt.close(figure)
