"""Says what was measured: a table for people, JSON for programs, a plot."""

from __future__ import annotations

import json
import platform
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import growth, verification
from benchmarks.growth import Memory
from benchmarks.measure import Result
from benchmarks.moments import Paced, Restart
from benchmarks.verification import Verified
from benchmarks.verifier import Held

LIBRARIES = ("grpcio", "protobuf", "cryptography", "joserfc", "uvloop", "uvicorn", "starlette", "sqlalchemy", "redis")


@dataclass(frozen=True, slots=True)
class Check:
    """A promise in figures: `value` must be at most `must` (None: it is only stated) and had better be at most `aim`;
    with `least`, at least."""

    name: str
    value: float | None
    must: float | None
    aim: float
    unit: str = "×"
    least: bool = False

    @property
    def verdict(self) -> str:
        if self.value is None:
            return "void"
        if self._holds(self.aim):
            return "aim"
        if self.must is None:
            return "stated"
        return "must" if self._holds(self.must) else "MISSED"

    def _holds(self, bound: float) -> bool:
        assert self.value is not None
        return self.value >= bound if self.least else self.value <= bound


def machine() -> dict[str, Any]:
    """What it was measured on."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    return {
        "cpu": model,
        "cores": sum(1 for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("processor")),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "libraries": {name: version(name) for name in LIBRARIES},
    }


def ratios(results: Sequence[Result]) -> dict[str, float | None]:
    """Each row's multiple of its floor."""
    by_name = {result.row.name: result for result in results}
    return {r.row.name: r.ratio_to(by_name[r.row.floor]) for r in results if r.row.floor in by_name}


def checks(results: Sequence[Result]) -> list[Check]:
    """The rows that promise something."""
    found = ratios(results)
    return [
        Check(f"{r.row.name} ÷ {r.row.floor}", found[r.row.name], r.row.must, r.row.aim)
        for r in results
        if r.row.must and r.row.name in found
    ] + change_checks(results)


def paced_checks(issued: Paced, introspected: Paced) -> list[Check]:
    """Latency at half the peak load: as a spread, and in generous absolute terms."""
    rates = f"at {issued.rate:,.0f} a second, half the peak"
    token = None if issued.errors else issued.p99 * 1000
    validation = None if introspected.errors else introspected.p99 * 1000
    return [
        Check(f"IssueToken, p99 ÷ p50 {rates}", issued.spread, 5, 3),
        Check(f"IssueToken, p99 {rates}", token, 100, 100, "ms"),
        Check(f"IntrospectToken, p99 at {introspected.rate:,.0f} a second, half the peak", validation, 10, 10, "ms"),
    ]


def restart_checks(runs: Sequence[Restart]) -> list[Check]:
    """1,000 clients' first tokens after a restart: the slowest run, and every hash of any."""
    failed = any(run.errors for run in runs)
    seconds = None if failed else max(run.seconds for run in runs)
    hashes = None if failed else float(sum(run.hashes for run in runs))
    return [
        Check("1,000 clients' first tokens after a restart, bcrypt hashes", hashes, 0, 0, ""),
        Check("1,000 clients' first tokens after a restart, the last", seconds, None, 2, "s"),
    ]


def verification_checks(measured: Sequence[Verified]) -> list[Check]:
    """What the client library's verifier promises to the services that use it."""
    found = {each.name: each for each in measured}
    if not found:
        return []
    first = statistics.median(found[verification.FIRST].ratios)
    known = [(name, statistics.median(found[name].cpu)) for name in (verification.KNOWN, verification.KNOWN_TRUSTED)]
    return [
        Check(f"{verification.FIRST} ÷ {verification.LIBRARY}", first, 1.3, 1.15),
        *(Check(name, cost, 10, 5, "µs") for name, cost in known),
    ]


def change_checks(results: Sequence[Result]) -> list[Check]:
    """Changes a second through the ledger's head on PostgreSQL: stated, and hoped to be 300."""
    names = {"CreateServiceAccount (bcrypt 4), PostgreSQL", "RotateSecret (bcrypt 4), PostgreSQL"}
    return [
        Check(f"{r.row.name}, a second", None if r.void else statistics.median(r.throughput), None, 300, "", least=True)
        for r in results
        if r.row.name in names
    ]


def document(
    results: Sequence[Result],
    signatures: Mapping[str, Sequence[float]],
    checked: Sequence[Check],
    verified: Sequence[Verified] = (),
) -> dict[str, Any]:
    """All of it, for programs."""
    found = ratios(results)
    return {
        "machine": machine(),
        "signatures_us": {name: statistics.median(values) for name, values in signatures.items()},
        "rows": [described(result, found.get(result.row.name)) for result in results],
        "verified": [
            {"name": v.name, "cpu_us": statistics.median(v.cpu), "cpu_us_runs": v.cpu, "times_library": v.ratios}
            for v in verified
        ],
        "checks": [
            {"name": c.name, "value": c.value, "must": c.must, "aim": c.aim, "unit": c.unit, "verdict": c.verdict}
            for c in checked
        ],
    }


def described(result: Result, ratio: float | None) -> dict[str, Any]:
    return {
        "name": result.row.name,
        "floor": result.row.floor or None,
        "connections": result.row.connections,
        "void": result.void,
        "errors": dict(result.errors),
        "cpu_us": None if result.void else statistics.median(result.cpu),
        "cpu_us_runs": result.cpu,
        "times_floor": ratio,
        "per_second": None if result.void else statistics.median(result.throughput),
        "p50_ms": milliseconds(result.quantile(0.5)),
        "p99_ms": milliseconds(result.quantile(0.99)),
        "p999_ms": milliseconds(result.quantile(0.999)),
        "samples": len(result.latencies),
        "load_generator_busy": max(result.load_share, default=0.0),
        "resident_mib": result.resident_bytes / 2**20,
    }


def milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1000


def table(found: Mapping[str, Any], console: Console) -> None:
    """Prints a document."""
    made = found["machine"]
    console.print(f"{made['cpu']}, {made['cores']} cores, {made['system']}, Python {made['python']}")
    console.print(", ".join(f"{name} {number}" for name, number in made["libraries"].items()))
    raw = ", ".join(f"{name} {value:.0f} µs" for name, value in found["signatures_us"].items())
    console.print(f"One raw signature, on one core: {raw}.")
    rows = Table("operation", "CPU µs", "× floor", "a second", "p50 ms", "p99", "p99.9", "MiB", "conn.", "load busy")
    for column in rows.columns[1:]:
        column.justify = "right"
    for row in found["rows"]:
        rows.add_row(row["name"], *cells(row))
    console.print(rows)
    for row in found["rows"]:
        for error, count in row["errors"].items():
            console.print(f"[red]void[/]: {row['name']}: {count} × {error}")
    if found["verified"]:
        shown = Table("in the service that verifies", "CPU µs")
        shown.columns[1].justify = "right"
        for each in found["verified"]:
            shown.add_row(each["name"], number(each["cpu_us"], 1))
        console.print(shown)
    promised = Table("promise", "measured", "must", "aim", "verdict")
    for check in found["checks"]:
        promised.add_row(*promise(check))
    console.print(promised)


def markdown(found: Mapping[str, Any]) -> str:
    """A document as the tables of docs/performance.md."""
    lines = ["| operation | CPU µs | × floor | a second | p50 ms | p99 | p99.9 | MiB | conn. | load busy |"]
    lines.append("|---|" + "--:|" * 9)
    lines += ["| " + " | ".join([row["name"], *cells(row)]) + " |" for row in found["rows"]]
    if found["verified"]:
        lines += ["", "| in the service that verifies | CPU µs |", "|---|--:|"]
        lines += [f"| {each['name']} | {number(each['cpu_us'], 1)} |" for each in found["verified"]]
    lines += ["", "| promise | measured | must | aim | verdict |", "|---|--:|--:|--:|---|"]
    lines += ["| " + " | ".join(promise(check)) + " |" for check in found["checks"]]
    return "\n".join(lines) + "\n"


def scaling_table(found: Mapping[str, Any], console: Console) -> None:
    """Prints the curve of workers."""
    made = found["machine"]
    console.print(f"{made['cpu']}, {made['cores']} cores, {made['system']}, Python {made['python']}")
    console.print(found["limits"])
    shown = Table(
        "workers",
        "cores",
        "CPU µs per token",
        "× one",
        "tokens a second",
        "idle CPU ms/s",
        "idle database/s",
        "database/s",
        "Redis per token",
        "MiB",
        "of it the supervisor's",
        "errors",
    )
    for column in shown.columns:
        column.justify = "right"
    for point in found["points"]:
        shown.add_row(*(number(value, 0 if value >= 100 else 3) for value in point.values()))
    console.print(shown)


def growth_document(
    grown: Mapping[str, Sequence[Result]], held: Sequence[Memory], verifiers: Sequence[Held] = ()
) -> dict[str, Any]:
    """What grew, for programs."""
    lines: dict[str, list[dict[str, Any]]] = {}
    for what, results in grown.items():
        found = ratios(results)
        sizes = next(line.sizes for line in growth.lines() if line.what == what)
        lines[what] = [
            {"size": size, "times_first": 1.0 if number == 0 else found[result.row.name]}
            | {"cpu_us": described(result, None)["cpu_us"], "errors": sum(result.errors.values())}
            for number, (size, result) in enumerate(zip(sizes, results, strict=True))
        ]
    memory = [{"tokens": m.tokens, "mib": m.resident_bytes / 2**20, "errors": m.errors} for m in held]
    checked = [{"revocations": v.revocations, "mib": v.bytes / 2**20, "check_ns": v.check_ns} for v in verifiers]
    return {"machine": machine(), "lines": lines, "memory": memory, "verifier": checked}


def growth_tables(found: Mapping[str, Any], console: Console) -> None:
    """Prints a document of growth."""
    made = found["machine"]
    console.print(f"{made['cpu']}, {made['cores']} cores, {made['system']}, Python {made['python']}")
    for what, points in found["lines"].items():
        shown = Table(what, "CPU µs per token", "× the first", "errors")
        for column in shown.columns:
            column.justify = "right"
        for point in points:
            times = number(point["times_first"], 3) or "void"
            shown.add_row(f"{point['size']:,}", number(point["cpu_us"], 0), times, str(point["errors"]))
        console.print(shown)
    if found["memory"]:
        shown = Table("tokens issued", "resident MiB", "errors")
        for step in found["memory"]:
            shown.add_row(f"{step['tokens']:,}", f"{step['mib']:,.1f}", str(step["errors"]))
        console.print(shown)
    if found["verifier"]:
        shown = Table("live revocations, at a verifier", "MiB", "ns per check")
        for step in found["verifier"]:
            shown.add_row(f"{step['revocations']:,}", f"{step['mib']:,.2f}", f"{step['check_ns']:,.0f}")
        console.print(shown)


def promise(check: Mapping[str, Any]) -> list[str]:
    measured = number(check["value"], 2, f" {check['unit']}".rstrip())
    must = "" if check["must"] is None else f"{check['must']:g}"
    return [check["name"], measured, must, f"{check['aim']:g}", check["verdict"]]


def cells(row: Mapping[str, Any]) -> list[str]:
    if row["void"]:
        return ["void"] + [""] * 8
    return [
        f"{row['cpu_us']:,.0f}",
        number(row["times_floor"], 2),
        number(row["per_second"], 0),
        number(row["p50_ms"], 2),
        number(row["p99_ms"], 2),
        number(row["p999_ms"], 2),
        number(row["resident_mib"], 0),
        str(row["connections"]),
        f"{row['load_generator_busy']:.0%}",
    ]


def number(value: float | None, digits: int, unit: str = "") -> str:
    return "" if value is None else f"{value:,.{digits}f}{unit}"


def write(path: Path, found: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
