"""Who may call what: tables from methods to rules on scopes and roles. What no table names, nobody may call.

Tables are checked when they are made: a typing error must not open or close a method in production. No I/O, and
nothing of gRPC or HTTP but the shape of names. Scopes decide; roles are presets of them, for where a scope says too
little.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from artstore.identity.caller import VerifiedToken

SCOPE = re.compile(r"[\x21\x23-\x5B\x5D-\x7E]+")
"""RFC 6749 §3.3, a scope-token."""
ROLE = re.compile(r"[a-z][a-z_]*")
GRPC_METHOD = re.compile(r"/(?:[A-Za-z_]\w*\.)*[A-Za-z_]\w*/(?:\*|[A-Za-z_]\w*)", re.ASCII)
HTTP_METHOD = re.compile(r"\*|[A-Z]+")
TEMPLATE = re.compile(r"\{[A-Za-z_]\w*\}", re.ASCII)
WEBSOCKET = "WEBSOCKET"
"""Stands for the method of a WebSocket's route."""


class Rule(Protocol):
    """Decides on a caller."""

    @property
    def public(self) -> bool:
        """Whether no token is needed."""
        ...

    @property
    def scope(self) -> str:
        """What a caller who lacks it should ask for, space-delimited; empty where no scope would help."""
        ...

    def allows(self, caller: VerifiedToken) -> bool: ...


@dataclass(frozen=True, slots=True)
class Simple:
    """A rule on nothing but whether there is a caller."""

    public: bool
    scope: str = ""

    def allows(self, caller: VerifiedToken) -> bool:
        return True


PUBLIC = Simple(public=True)
"""Anybody, without a token; one that is sent is not looked at."""
AUTHENTICATED = Simple(public=False)
"""Whoever has a valid token for this service."""


@dataclass(frozen=True, slots=True)
class Scopes:
    """All of these scopes."""

    names: frozenset[str]
    public: bool = False

    @property
    def scope(self) -> str:
        return " ".join(sorted(self.names))

    def allows(self, caller: VerifiedToken) -> bool:
        return self.names <= caller.scopes


@dataclass(frozen=True, slots=True)
class Roles:
    """One of these roles."""

    names: frozenset[str]
    public: bool = False
    scope: str = ""

    def allows(self, caller: VerifiedToken) -> bool:
        return caller.role in self.names


@dataclass(frozen=True, slots=True)
class Several:
    """All of several rules, or any of them."""

    rules: tuple[Rule, ...]
    all: bool
    public: bool = False

    @property
    def scope(self) -> str:
        named = [each.scope for each in self.rules if each.scope]
        if not self.all:
            return named[0] if named else ""
        return " ".join(dict.fromkeys(" ".join(named).split()))

    def allows(self, caller: VerifiedToken) -> bool:
        said = (each.allows(caller) for each in self.rules)
        return all(said) if self.all else any(said)


def scope(*names: str) -> Rule:
    """All of these scopes. Raises ValueError."""
    return Scopes(_checked(names, SCOPE, "scope"))


def role(*names: str) -> Rule:
    """One of these roles: `admin`, `user`, `auditor`, `readonly`. Raises ValueError."""
    return Roles(_checked(names, ROLE, "role"))


def all_of(*rules: Rule) -> Rule:
    """Every one of these rules. Raises ValueError."""
    return Several(_parts(rules), all=True)


def any_of(*rules: Rule) -> Rule:
    """At least one of these rules. Raises ValueError."""
    return Several(_parts(rules), all=False)


def _checked(names: tuple[str, ...], form: re.Pattern[str], what: str) -> frozenset[str]:
    if not names:
        raise ValueError(f"name at least one {what}.")
    for name in names:
        if not isinstance(name, str) or not form.fullmatch(name):
            raise ValueError(f"{name!r} is no {what}; give several as several arguments.")
    return frozenset(names)


def _parts(rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
    for each in rules:
        if not isinstance(each, Scopes | Roles | Several):
            raise ValueError(f"{each!r} can't be a part of a rule: scope(…), role(…), all_of(…) and any_of(…) can.")
    if not rules:
        raise ValueError("give at least one rule.")
    return rules


HEALTH_AND_REFLECTION: Mapping[str, Rule] = {
    "/grpc.health.v1.Health/*": PUBLIC,
    "/grpc.reflection.v1.ServerReflection/*": PUBLIC,
    "/grpc.reflection.v1alpha.ServerReflection/*": PUBLIC,
}
"""What orchestrators and developers call without a token; to be merged into a table: `{**HEALTH_AND_REFLECTION, …}`."""


def _is_rule(rule: object) -> bool:
    return isinstance(rule, Simple | Scopes | Roles | Several)


class MethodTable:
    """gRPC methods: `/package.Service/Method`, or `/package.Service/*` for the rest of a service."""

    def __init__(self, rules: Mapping[str, Rule]) -> None:
        """Raises ValueError for a name that is no method's, and for what is no rule."""
        for name, rule in rules.items():
            if not isinstance(name, str) or not GRPC_METHOD.fullmatch(name):
                raise ValueError(f"{name!r} is no gRPC method: write /package.Service/Method or /package.Service/*.")
            if not _is_rule(rule):
                raise ValueError(f"{name}: {rule!r} is no rule: use scope(…), role(…), any_of(…), all_of(…), PUBLIC.")
        self._rules = dict(rules)

    def rule(self, method: str) -> Rule | None:
        """The rule for a method; None where nobody may call it."""
        found = self._rules.get(method)
        return found or self._rules.get(method.rpartition("/")[0] + "/*")


CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Route:
    """A row of an HTTP table, taken apart."""

    method: str
    segments: tuple[str, ...]
    rest: bool
    """Whether more segments may follow: it ended in `/*`."""
    rule: Rule

    @property
    def vagueness(self) -> tuple[tuple[int, ...], bool]:
        """The more exact a row is, the sooner it is looked at."""
        kinds = tuple(int(bool(TEMPLATE.fullmatch(each))) for each in self.segments)
        return (*kinds, 3 if self.rest else 2), self.method == "*"

    def matches(self, method: str, segments: tuple[str, ...]) -> bool:
        if self.method not in ("*", method):
            return False
        count = len(self.segments)
        if len(segments) <= count if self.rest else len(segments) != count:
            return False
        if not all(_fits(mine, given) for mine, given in zip(self.segments, segments, strict=False)):
            return False
        # Behind a prefix, nothing that another reader of the path may take for a way out of it.
        return all(each not in ("", ".", "..") and "\\" not in each for each in segments[count:])


def _fits(mine: str, given: str) -> bool:
    return given != "" and given not in (".", "..") if mine.startswith("{") else mine == given


class RouteTable:
    """HTTP routes: `METHOD /path`, with `{name}` for one segment and a last `/*` for all that is below; `*` is any
    method, WEBSOCKET a WebSocket. The most exact row counts; HEAD is as GET where it has no row of its own."""

    def __init__(self, rules: Mapping[str, Rule]) -> None:
        """Raises ValueError for what is no route, and for what is no rule."""
        routes = [_route(name, rule) for name, rule in rules.items()]
        shapes = [
            (each.method, tuple("{}" if s[:1] == "{" else s for s in each.segments), each.rest) for each in routes
        ]
        for shape, name in zip(shapes, rules, strict=True):
            if shapes.count(shape) > 1:
                raise ValueError(f"{name!r} is there twice: which row counts?")
        self._routes = sorted(routes, key=lambda each: each.vagueness)

    def rule(self, method: str, path: str) -> Rule | None:
        """The rule for a request; None where nobody may make it."""
        if not path.startswith("/") or CONTROL.search(path):  # routers differ in what they make of a line break
            return None
        segments = tuple(path.split("/")[1:])
        found = [each for each in self._routes if each.matches(method, segments)]
        if method == "HEAD" and not any(each.method == "HEAD" for each in found):
            return self.rule("GET", path)  # which servers answer it by, whatever a row for any method says
        return found[0].rule if found else None


def _route(name: str, rule: Rule) -> Route:
    method, _, path = name.partition(" ") if isinstance(name, str) else ("", "", "")
    rest = path.endswith("/*")
    segments = tuple(path.removesuffix("/*").split("/")[1:])
    if not HTTP_METHOD.fullmatch(method) or not path.startswith("/") or not all(map(_is_segment(path), segments)):
        raise ValueError(
            f"{name!r} is no route: write METHOD /path, with {{name}} for a segment and a last /* for more."
        )
    if not _is_rule(rule):
        raise ValueError(f"{name}: {rule!r} is no rule: use scope(…), role(…), any_of(…), all_of(…), PUBLIC.")
    return Route(method, segments, rest, rule)


def _is_segment(path: str) -> Callable[[str], bool]:
    """What may stand between two slashes; nothing may where a path ends in one."""

    def holds(segment: str) -> bool:
        if TEMPLATE.fullmatch(segment) or (segment == "" and path.endswith("/")):
            return True
        return bool(segment) and segment not in (".", "..") and not re.search(r"[{}*?#\\\s]", segment)

    return holds
