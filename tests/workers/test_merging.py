"""Workers' metrics as one: what several processes tell is what one that did it all would, and counters never fall."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Gauge, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from artstore_grpc.telemetry import catalogue
from artstore_grpc.telemetry.catalogue import Merge
from artstore_grpc.telemetry.merging import CUMULATIVE, Families, Merged, families, heard, merged, message
from artstore_grpc.telemetry.metrics import Metrics

METHODS = catalogue.METHODS[:2]
CODES = ("OK", "UNAUTHENTICATED")

Call = tuple[int, str, str, float]
"""By which worker, which method, with which code, in how many seconds (in eighths: sums of those are exact)."""

calls = st.lists(
    st.tuples(
        st.integers(0, 3), st.sampled_from(METHODS), st.sampled_from(CODES), st.integers(0, 100).map(lambda n: n / 8)
    ),
    max_size=60,
)


def counted(metrics: Metrics, done: Sequence[Call]) -> None:
    for _, method, code, seconds in done:
        metrics.calls.finished(method, "grpc", code, seconds)
        metrics.issued.add("normal")


def own(told: Families) -> Families:
    """Without what the operating system says of this process, which is one and the same here."""
    return {name: family for name, family in told.items() if name.startswith("artstore_")}


@settings(deadline=None)
@given(calls)
def test_merged_are_as_one(done: list[Call]) -> None:
    """Calls divided among four workers, each with metrics of its own, merge into what one process tells of them all;
    the way over the channel changes nothing."""
    one, several = Metrics(), [Metrics() for _ in range(4)]
    counted(one, done)
    for number, each in enumerate(several):
        counted(each, [call for call in done if call[0] == number])
    told = [own(families(each.registry)) for each in several]
    sent = [heard(json.loads(json.dumps(message(each)))) for each in told]
    assert sent == told
    rules = {"artstore_build_info": Merge.MAX}
    assert merged(sent, rules) == own(families(one.registry))


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.one_of(st.tuples(st.just("work"), calls), st.tuples(st.just("die"), st.integers(0, 3))), max_size=30)
)
def test_counters_never_fall(history: list[tuple[str, list[Call] | int]]) -> None:
    """Whatever workers do, tell, and die in between, no counter and no bucket of what is exposed is ever less than
    before; what a worker had told is never lost."""
    whole = Merged(CollectorRegistry(), {})
    workers, serials, seen, last = [Metrics() for _ in range(4)], list(range(4)), {}, 4
    done = 0
    for what, detail in history:
        if what == "work":
            assert isinstance(detail, list)
            done += len(detail)
            for number, each in enumerate(workers):
                counted(each, [call for call in detail if call[0] == number])
                whole.tell(serials[number], families(each.registry))
        else:
            assert isinstance(detail, int)
            whole.forget(serials[detail])
            workers[detail], serials[detail], last = Metrics(), last, last + 1
        now = exposed(whole)
        assert all(now[key] >= value for key, value in seen.items())
        seen = now
    assert sum(value for (name, _), value in seen.items() if name == "artstore_calls_total") == done


def exposed(whole: Merged) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """What Prometheus reads, of what only grows; fails where the text can't be parsed."""
    registry = CollectorRegistry()
    registry.register(whole)
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(generate_latest(registry).decode())
        if family.type in CUMULATIVE and not family.name.startswith("process_")
        for sample in family.samples
    }


def gauges(value: float) -> Families:
    registry = CollectorRegistry()
    for rule in Merge:
        Gauge(f"artstore_{rule}", "A gauge.", registry=registry).set(value)
    return families(registry)


def test_gauges_have_rules() -> None:
    """A gauge becomes the sum, the highest or the lowest, as its row says; the sum where it has none; those of a
    worker that has ended are gone, and what is no number survives the way."""
    rules = {f"artstore_{rule}": rule for rule in (Merge.MAX, Merge.MIN)}
    whole = Merged(CollectorRegistry(), rules)
    whole.tell(1, gauges(3.0))
    whole.tell(2, gauges(5.0))
    assert read(whole) == {"artstore_sum": 8, "artstore_max": 5, "artstore_min": 3}
    whole.forget(2)
    assert read(whole) == {"artstore_sum": 3, "artstore_max": 3, "artstore_min": 3}
    whole.tell(1, heard(json.loads(json.dumps(message(gauges(math.inf))))))
    assert read(whole)["artstore_max"] == math.inf


def read(whole: Merged) -> dict[str, float]:
    return {sample.name: sample.value for metric in whole.collect() for sample in metric.samples}
