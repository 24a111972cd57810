"""What a PromQL query asks for: its metrics, and the labels that it matches or groups by."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import promql_parser

VARIABLES = {"$__rate_interval": "1m", "$job": ".+", "$instance": ".+"}
"""What Grafana puts in place of its own variables, and of the dashboards' own."""
SUFFIXES = ("_bucket", "_count", "_sum")
BY_PROMETHEUS = {"job", "instance"}
"""Labels that a scrape adds."""


@dataclass(frozen=True)
class Matcher:
    """One condition on a label."""

    label: str
    op: str
    value: str

    def admits(self, value: str) -> bool:
        """Whether a series with this value is selected."""
        if self.op in ("=", "!="):
            return (value == self.value) == (self.op == "=")
        return (re.fullmatch(self.value, value) is not None) == (self.op == "=~")


@dataclass(frozen=True)
class Selector:
    """One metric that a query asks for."""

    metric: str
    matchers: tuple[Matcher, ...]

    @property
    def family(self) -> str:
        """The metric as the catalogue names it: a histogram's series are three."""
        return next((self.metric.removesuffix(each) for each in SUFFIXES if self.metric.endswith(each)), self.metric)


@dataclass(frozen=True)
class Query:
    """A query, parsed."""

    text: str
    selectors: tuple[Selector, ...]
    grouped: frozenset[str]
    """Labels of `by`, `on`, `ignoring` and `without`."""


def plain(text: str) -> str:
    """A dashboard's query without Grafana's variables."""
    for variable, value in VARIABLES.items():
        text = text.replace(variable, value)
    return text


def parsed(text: str) -> Query:
    """Parses a query. Raises ValueError, as the parser does, for one that Prometheus would refuse."""
    nodes = list(walked(promql_parser.parse(plain(text))))
    return Query(
        text,
        tuple(selector(node) for node in nodes if isinstance(node, promql_parser.VectorSelector)),
        frozenset(label for node in nodes for label in grouping(node)),
    )


BELOW = ("expr", "lhs", "rhs", "vector_selector", "param")
"""Where the parser's nodes have others; a function's are its `args`."""


def walked(node: Any) -> Iterator[Any]:
    """A node and those below it."""
    yield node
    for each in (*(getattr(node, name, None) for name in BELOW), *(getattr(node, "args", None) or ())):
        if each is not None:
            yield from walked(each)


def selector(node: Any) -> Selector:
    found = tuple(Matcher(each.name, symbol(each.op), each.value) for each in node.matchers.matchers)
    return Selector(node.name or "", found)


def symbol(op: Any) -> str:
    return {"Equal": "=", "NotEqual": "!=", "Re": "=~", "NotRe": "!~"}[str(op).rpartition(".")[2]]


def grouping(node: Any) -> tuple[str, ...]:
    """The labels that an aggregation or a binary operation names."""
    modifier = getattr(node, "modifier", None)
    lists = (
        getattr(modifier, "labels", None),
        getattr(getattr(modifier, "matching", None), "labels", None),
        getattr(modifier, "group_labels", None),
    )
    return tuple(label for each in lists for label in (each or ()))
