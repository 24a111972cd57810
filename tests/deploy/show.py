"""Draws the dashboards with real data, for docs/alerts.md: python -m tests.deploy.show [MINUTES]

Two replicas under a few minutes of mixed calls, scraped by a real Prometheus; Redis is away for a while, then the
database. Needs a prometheus (deploy/prometheus/check.sh unpacks Debian's), and matplotlib (requirements/bench.txt).
"""

from __future__ import annotations

import importlib.util
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType

from tests.deploy import prometheus
from tests.deploy.rules import ROOT
from tests.deploy.stage import Stage, refused, staged

PICTURES = ROOT / "docs" / "dashboards"
MINUTES = 4.0
STEP_SECONDS = 2
SCRAPE = "2s"
CLIENTS = 3
SETTINGS = {"ARTSTORE_BCRYPT_COST": "10", "ARTSTORE_SOURCE_FAILURES": "1000000"}
"""All callers here share one address."""


def plot() -> ModuleType:
    """deploy/grafana/plot.py, which is a program and in no package."""
    spec = importlib.util.spec_from_file_location("plot", ROOT / "deploy/grafana/plot.py")
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def outages(stage: Stage, minutes: float) -> None:
    """A quiet third, Redis away, quiet, the database away, and quiet to the end."""
    part = minutes * 60 / 10
    refused(stage.deliver)
    time.sleep(3 * part)
    print("Redis goes away")
    stage.redis.stop()
    time.sleep(part)
    stage.redis.start()
    print("Redis is back")
    time.sleep(2 * part)
    print("the database goes away")
    stage.postgres.stop()
    time.sleep(part)
    stage.postgres.start()
    print("the database is back")
    refused(stage.deliver)
    time.sleep(3 * part)


def main(minutes: float) -> None:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stage = stack.enter_context(staged(folder, SETTINGS))
        for client in stage.clients:
            stage.bearers(client)
        watched = stack.enter_context(prometheus.watching(folder / "prometheus", stage.targets, interval=SCRAPE))
        works = [lambda client=client: stage.follow(client) for client in stage.clients]
        works += [stage.every(0.05, stage.tokens)] * CLIENTS
        works += [
            stage.every(0.5, stage.refusals),
            stage.every(1.0, stage.changes),
            stage.every(20.0, stage.bring_over),
        ]
        stack.enter_context(stage.busy(works))
        start = time.time()
        outages(stage, minutes)
        plot().draw(watched.url, start, time.time(), STEP_SECONDS, PICTURES)


if __name__ == "__main__":
    if prometheus.found() is None:
        sys.exit("This needs a prometheus: deploy/prometheus/check.sh unpacks Debian's into build/prometheus.")
    main(float(sys.argv[1]) if len(sys.argv) > 1 else MINUTES)
