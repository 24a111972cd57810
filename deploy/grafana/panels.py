"""What a dashboard is made of, and its JSON as Grafana 10 and later load it.

Everything here is in Grafana's own words: see "Dashboard JSON model" in its manual. Queries are for one datasource,
which is a variable; `job` and `instance` are variables too, made of what artstore_build_info has.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

SCHEMA = 39
"""Grafana 10.4's; later ones bring it up to theirs as they load it."""
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
OURS = 'job=~"$job", instance=~"$instance"'
"""The matchers that every query has."""
RUNBOOKS = "https://docs.artstore.example/runbooks"
ALERTS = "https://docs.artstore.example/alerts.html"
WIDTH = 24
"""Columns of Grafana's grid; a unit of height is 30 pixels."""
GREEN, YELLOW, RED, BLUE = "green", "yellow", "red", "blue"


@dataclass(frozen=True)
class Series:
    """A query, and what its series are called."""

    query: str
    legend: str


@dataclass(frozen=True)
class Panel:
    """One panel.

    unit: Grafana's name of one. thresholds: from which values on it is yellow or red. runbook: the alert whose page is
    linked. kind: `timeseries` or `stat`. named_colours: by the names of series.
    """

    title: str
    text: str
    series: tuple[Series, ...]
    unit: str = "short"
    width: int = 8
    height: int = 8
    kind: str = "timeseries"
    thresholds: tuple[tuple[float, str], ...] = ()
    runbook: str = ""
    stacked: bool = False
    mappings: tuple[tuple[str, str, str], ...] = ()
    """Values that are shown as words: the value, the word, its colour."""
    most: float | None = None
    decimals: int | None = None
    named_colours: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Row:
    """Panels under a heading."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Board:
    """A dashboard; its file has the name of its uid."""

    uid: str
    title: str
    text: str
    rows: tuple[Row, ...]


def dashboard(board: Board) -> dict[str, Any]:
    """A dashboard's JSON; it links to the others by their tag."""
    return {
        "uid": f"artstore-identity-{board.uid.replace('_', '-')}",
        "title": f"ArtStore identity: {board.title}",
        "description": f"{board.text} Written by deploy/grafana/generate.py; changes made here are lost.",
        "tags": ["artstore-identity"],
        "schemaVersion": SCHEMA,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "utc",
        "links": [
            {
                "title": "ArtStore identity",
                "type": "dashboards",
                "tags": ["artstore-identity"],
                "asDropdown": False,
                "includeVars": True,
                "keepTime": True,
            },
            {"title": "Alerts and runbooks", "type": "link", "url": ALERTS, "icon": "doc", "targetBlank": True},
        ],
        "templating": {"list": variables()},
        "annotations": {"list": [alerts_that_fired()]},
        "panels": panels(board),
    }


def variables() -> list[dict[str, Any]]:
    """The datasource, the scrape job and the instances."""
    return [
        {
            "name": "datasource",
            "label": "Prometheus",
            "type": "datasource",
            "query": "prometheus",
            "refresh": 1,
            "hide": 0,
        },
        asked("job", "Job", "label_values(artstore_build_info, job)"),
        asked("instance", "Instance", 'label_values(artstore_build_info{job=~"$job"}, instance)'),
    ]


def asked(name: str, label: str, query: str) -> dict[str, Any]:
    """A variable whose values Prometheus has; all of them at first."""
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": DATASOURCE,
        "definition": query,
        "query": {"query": query, "refId": name},
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".+",
        "current": {"text": ["All"], "value": ["$__all"]},
    }


def alerts_that_fired() -> dict[str, Any]:
    """A mark at each time that an alert of ours fired."""
    return {
        "name": "Alerts",
        "datasource": DATASOURCE,
        "enable": True,
        "iconColor": RED,
        "expr": 'ALERTS{alertname=~"Artstore.+", alertstate="firing"}',
        "titleFormat": "{{alertname}}",
        "textFormat": "{{instance}} ({{severity}})",
        "step": "30s",
    }


def panels(board: Board) -> list[dict[str, Any]]:
    """Rows from top to bottom, panels from left to right, as wide as they say."""
    made: list[dict[str, Any]] = []
    top = 0
    for row in board.rows:
        made.append(heading(row, len(made) + 1, top))
        top += 1
        left = high = 0
        for panel in row.panels:
            if left + panel.width > WIDTH:
                left, top, high = 0, top + high, 0
            made.append(rendered(panel, len(made) + 1, left, top))
            left, high = left + panel.width, max(high, panel.height)
        top += high
    return made


def heading(row: Row, number: int, top: int) -> dict[str, Any]:
    place = {"x": 0, "y": top, "w": WIDTH, "h": 1}
    return {"id": number, "type": "row", "title": row.title, "collapsed": False, "gridPos": place, "panels": []}


def rendered(panel: Panel, number: int, left: int, top: int) -> dict[str, Any]:
    made: dict[str, Any] = {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.text,
        "datasource": DATASOURCE,
        "gridPos": {"x": left, "y": top, "w": panel.width, "h": panel.height},
        "targets": [target(series, index, panel) for index, series in enumerate(panel.series)],
        "fieldConfig": {"defaults": defaults(panel), "overrides": [coloured(*each) for each in panel.named_colours]},
        "options": STAT if panel.kind == "stat" else TIMESERIES,
    }
    if panel.runbook:
        made["links"] = [
            {"title": f"Runbook: {panel.runbook}", "url": f"{RUNBOOKS}/{panel.runbook}.html", "targetBlank": True}
        ]
    return made


def target(series: Series, index: int, panel: Panel) -> dict[str, Any]:
    return {
        "refId": chr(ord("A") + index),
        "datasource": DATASOURCE,
        "expr": series.query,
        "legendFormat": series.legend,
        "instant": panel.kind == "stat",
        "range": panel.kind != "stat",
    }


def defaults(panel: Panel) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [{"color": GREEN, "value": None}]
    steps += [{"color": color, "value": value} for value, color in panel.thresholds]
    made: dict[str, Any] = {
        "unit": panel.unit,
        "min": 0,
        "thresholds": {"mode": "absolute", "steps": steps},
        "color": {"mode": "thresholds" if panel.kind == "stat" else "palette-classic"},
        "mappings": [
            {
                "type": "value",
                "options": {
                    value: {"text": word, "color": color, "index": index}
                    for index, (value, word, color) in enumerate(panel.mappings)
                },
            }
        ]
        if panel.mappings
        else [],
    }
    if panel.most is not None:
        made["max"] = panel.most
    if panel.decimals is not None:
        made["decimals"] = panel.decimals
    if panel.kind == "timeseries":
        made["custom"] = lines(panel)
    return made


def lines(panel: Panel) -> dict[str, Any]:
    return {
        "drawStyle": "line",
        "lineWidth": 1,
        "fillOpacity": 30 if panel.stacked else 8,
        "showPoints": "never",
        "spanNulls": False,
        "stacking": {"mode": "normal" if panel.stacked else "none", "group": "A"},
        "thresholdsStyle": {"mode": "dashed" if panel.thresholds else "off"},
    }


def coloured(name: str, color: str) -> dict[str, Any]:
    """One series' colour, where a series means good or bad."""
    return {
        "matcher": {"id": "byName", "options": name},
        "properties": [{"id": "color", "value": {"mode": "fixed", "fixedColor": color}}],
    }


TIMESERIES = {
    "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
    "tooltip": {"mode": "multi", "sort": "desc"},
}
STAT = {
    "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
    "colorMode": "background",
    "graphMode": "none",
    "textMode": "auto",
    "justifyMode": "auto",
    "orientation": "auto",
}
