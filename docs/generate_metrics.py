"""Writes docs/metrics.md from the catalogue of metrics."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from markdown import BANNER, code, table

from artstore_grpc.counters import HASH_BUCKETS, LATENCY_BUCKETS, WAIT_BUCKETS
from artstore_grpc.telemetry.catalogue import FAMILIES, OTHER, Family, Kind

PAGE = Path(__file__).resolve().parent / "metrics.md"

HEAD = f"""{BANNER}
# Metrics
What a process says at `/metrics` on `ARTSTORE_METRICS_ADDRESS`, in Prometheus' text format. A scrape runs in a thread
of its own and reads plain numbers: it neither holds up calls nor asks the database, nor Redis, anything.

Each label has the values that are listed below and no others, so that no caller can make a series. `{OTHER}` stands for
what is not in the list, which is a defect. A counter of few series starts with all of them at 0. A gauge that is not
known yet is absent.

*Merge* is how the values of several processes that are scraped as one become one; replicas that are scraped apart are
merged the same way in queries. Counters and histograms are summed."""

BUCKETS = (
    ("artstore_call_duration_seconds", LATENCY_BUCKETS),
    ("artstore_bcrypt_duration_seconds", HASH_BUCKETS),
    ("artstore_database_pool_wait_seconds", WAIT_BUCKETS),
)
OF_A_RELEASE = "version"
"""A label whose value is the release's."""


def row(family: Family) -> tuple[str, ...]:
    labels = ", ".join(map(code, family.labels))
    return code(family.name), family.kind, labels, family.merge, family.text


def label_rows() -> Iterator[tuple[str, ...]]:
    """Each label of each metric, those of several with the same values once."""
    seen: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for family in FAMILIES:
        for label, values in family.labels.items():
            seen.setdefault((label, values), []).append(code(family.name))
    for (label, values), names in seen.items():
        told = "the one that runs" if label == OF_A_RELEASE else ", ".join(map(code, values))
        yield code(label), ", ".join(names), told


def bucket_rows() -> Iterator[tuple[str, ...]]:
    for name, bounds in BUCKETS:
        yield code(name), ", ".join(f"{bound:g}" for bound in bounds)


def page() -> str:
    """docs/metrics.md."""
    unknown = {name for name, _ in BUCKETS} ^ {each.name for each in FAMILIES if each.kind is Kind.HISTOGRAM}
    assert not unknown, f"docs/generate_metrics.py doesn't know the buckets of {unknown}"
    return "\n".join(
        [
            HEAD,
            "",
            *table(("name", "type", "labels", "merge", "meaning"), map(row, FAMILIES)),
            "",
            "## Labels",
            *table(("label", "of", "values"), label_rows()),
            "",
            "## Buckets",
            *table(("histogram", "upper bounds, in seconds"), bucket_rows()),
            "",
        ]
    )
