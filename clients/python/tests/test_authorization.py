"""Tables of who may call what: what they accept is right, and what they don't know nobody may."""

from __future__ import annotations

from typing import Any

import pytest
from artstore.identity import (
    AUTHENTICATED,
    HEALTH_AND_REFLECTION,
    PUBLIC,
    MethodTable,
    RouteTable,
    Rule,
    VerifiedToken,
    all_of,
    any_of,
    role,
    scope,
)
from hypothesis import given
from hypothesis import strategies as st

READ, WRITE = scope("storage.read"), scope("storage.write")


def caller(*scopes: str, role: str = "user") -> VerifiedToken:
    return VerifiedToken({"role": role, "client_id": "c", "jti": "j"}, frozenset(scopes), ("storage",), 0.0, "kid")


@pytest.mark.parametrize(
    ("rule", "allowed", "refused"),
    [
        (READ, caller("storage.read"), caller("storage.write")),
        (scope("a", "b"), caller("a", "b", "c"), caller("a")),
        (role("admin"), caller(role="admin"), caller("a", role="user")),
        (role("admin", "auditor"), caller(role="auditor"), caller(role="")),
        (any_of(READ, role("admin")), caller(role="admin"), caller("storage.write")),
        (all_of(READ, role("admin")), caller("storage.read", role="admin"), caller("storage.read")),
        (all_of(any_of(READ, WRITE), role("user")), caller("storage.write"), caller(role="user")),
        (READ, caller("storage.read"), caller("storage.reader", "STORAGE.READ", "storage")),
    ],
)
def test_rules(rule: Rule, allowed: VerifiedToken, refused: VerifiedToken) -> None:
    """Each lets in who has what it asks for, and not who lacks a part of it."""
    assert rule.allows(allowed)
    assert not rule.allows(refused)
    assert not rule.public


@pytest.mark.parametrize(
    ("rule", "wanted"),
    [
        (scope("b", "a"), "a b"),
        (role("admin"), ""),
        (all_of(READ, WRITE, role("user")), "storage.read storage.write"),
        (any_of(role("admin"), READ, WRITE), "storage.read"),
        (AUTHENTICATED, ""),
    ],
)
def test_what_to_ask_for(rule: Rule, wanted: str) -> None:
    """RFC 6750 §3: the scope that would help, where one would."""
    assert rule.scope == wanted


@pytest.mark.parametrize(
    "make",
    [
        scope,
        role,
        any_of,
        all_of,
        lambda: scope("a b"),
        lambda: scope(""),
        lambda: scope('a"b'),
        lambda: scope(["a"]),  # type: ignore[arg-type]
        lambda: role("Admin"),
        lambda: role("ROLE_ADMIN"),
        lambda: any_of(PUBLIC, READ),
        lambda: all_of(AUTHENTICATED, READ),
        lambda: any_of("storage.read"),  # type: ignore[arg-type]
        lambda: any_of([READ]),  # type: ignore[arg-type]
    ],
)
def test_rules_that_are_none(make: Any) -> None:
    """Refused when they are written, not when somebody calls."""
    with pytest.raises(ValueError, match=r"name at least|is no|give at least|can't be a part"):
        make()


# --- gRPC ---


def test_grpc_methods() -> None:
    """The method's own row counts, then its service's; what has none, nobody may call."""
    table = MethodTable({"/files.v1.Files/Read": READ, "/files.v1.Files/*": WRITE, "/Bare/Do": PUBLIC})
    assert table.rule("/files.v1.Files/Read") is READ
    assert table.rule("/files.v1.Files/Delete") is WRITE
    assert table.rule("/Bare/Do") is PUBLIC
    for other in (
        "/files.v1.FilesX/Read",
        "/files.v1/Files/Read",
        "/Files/Read",
        "files.v1.Files/Read",
        "/Bare/Other",
        "/",
        "",
        "/files.v1.files/Read",
        "/x/files.v1.Files/Read",
    ):
        assert table.rule(other) is None, other


def test_health_and_reflection_can_be_public() -> None:
    """By one line; without it they are not."""
    table = MethodTable({**HEALTH_AND_REFLECTION, "/files.v1.Files/Read": READ})
    assert table.rule("/grpc.health.v1.Health/Check") is PUBLIC
    assert table.rule("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo") is PUBLIC
    assert MethodTable({}).rule("/grpc.health.v1.Health/Check") is None


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/",
        "/*",
        "*",
        "Files/Read",
        "/Files",
        "/Files/",
        "/Files/Re*",
        "/F*/Read",
        "/a..b/C",
        "/A/B/C",
        "/A/B ",
        "/A/é",
    ],
)
def test_names_that_no_method_has(name: str) -> None:
    """A table with a typing error is refused as a whole."""
    with pytest.raises(ValueError, match="is no gRPC method"):
        MethodTable({name: READ})


@pytest.mark.parametrize("rule", [None, True, "storage.read", ["storage.read"], scope, object()])
def test_what_is_no_rule(rule: Any) -> None:
    """In either table."""
    with pytest.raises(ValueError, match="is no rule"):
        MethodTable({"/files.v1.Files/Read": rule})
    with pytest.raises(ValueError, match="is no rule"):
        RouteTable({"GET /files": rule})


# --- HTTP ---

ADMIN, OPEN = role("admin"), AUTHENTICATED
ROUTES = RouteTable(
    {
        "GET /": PUBLIC,
        "GET /files": READ,
        "GET /files/{id}": READ,
        "GET /files/mine": OPEN,
        "PUT /files/{id}": WRITE,
        "* /files/*": ADMIN,
        "GET /files/{id}/parts/{n}": WRITE,
        "GET /static/*": PUBLIC,
        "GET /trailing/": OPEN,
        "WEBSOCKET /feed": READ,
    }
)


@pytest.mark.parametrize(
    ("method", "path", "rule"),
    [
        ("GET", "/", PUBLIC),
        ("GET", "/files", READ),
        ("HEAD", "/files", READ),
        ("GET", "/files/1", READ),
        ("GET", "/files/mine", OPEN),
        ("PUT", "/files/mine", WRITE),
        ("DELETE", "/files/1", ADMIN),
        ("GET", "/files/1/parts/2", WRITE),
        ("GET", "/files/1/other", ADMIN),
        ("GET", "/files/1/parts/2/3", ADMIN),
        ("GET", "/static/a", PUBLIC),
        ("GET", "/static/a/b.css", PUBLIC),
        ("GET", "/trailing/", OPEN),
        ("WEBSOCKET", "/feed", READ),
        ("POST", "/", None),
        ("POST", "/files", None),
        ("OPTIONS", "/static/a", None),
        ("get", "/files", None),
        ("GET", "/files/", None),
        ("GET", "//files", None),
        ("GET", "/Files", None),
        ("GET", "/static", None),
        ("GET", "/static/", None),
        ("GET", "/static/../files", None),
        ("GET", "/static/./a", None),
        ("GET", "/static//a", None),
        ("GET", "/static/..", None),
        ("GET", "/static/..\\files", None),
        ("GET", "/files/..", None),
        ("GET", "/trailing", None),
        ("GET", "/feed", None),
        ("GET", "feed", None),
        ("GET", "", None),
        ("GET", "*", None),
    ],
)
def test_http_routes(method: str, path: str, rule: Rule | None) -> None:
    """The most exact row counts; a path that another reader may take for a different one has none."""
    assert ROUTES.rule(method, path) is rule


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/files",
        "GET",
        "GET files",
        "get /files",
        "GET  /files",
        "GET /files/{id",
        "GET /files/{}",
        "GET /files/{a b}",
        "GET /files/x{id}",
        "GET /*/files",
        "GET /fi*",
        "GET /a//b",
        "GET /a/../b",
        "GET /a?b=c",
        "GET /a b",
        "GET|POST /a",
    ],
)
def test_names_that_no_route_has(name: str) -> None:
    """A table with a typing error is refused as a whole."""
    with pytest.raises(ValueError, match="is no route"):
        RouteTable({name: READ})


def test_two_rows_of_one_shape() -> None:
    """Which of them counted would depend on their order."""
    with pytest.raises(ValueError, match="twice"):
        RouteTable({"GET /files/{id}": READ, "GET /files/{name}": WRITE})


@given(st.lists(st.sampled_from(["files", "mine", "1", "parts", "static", "..", ".", "", "a\\b"]), max_size=5))
def test_no_path_is_public_by_a_way_out(segments: list[str]) -> None:
    """Whatever the path: public are the root and what lies below /static without a way out of it."""
    path = "/" + "/".join(segments)
    if ROUTES.rule("GET", path) is PUBLIC:
        assert path == "/" or (segments[0] == "static" and not {"..", ".", "", "a\\b"} & set(segments[1:]))


@pytest.mark.parametrize("path", ["/files/secret\n", "/files/a\r", "/files/\x7f", "/\x00"])
def test_a_path_with_a_control_character(path: str) -> None:
    """Nobody's: a router that takes it for the path without it must not find a weaker row's rule applied."""
    table = RouteTable({"GET /files/secret": WRITE, "GET /files/{name}": READ, "* /*": READ})
    assert table.rule("GET", path) is None
    assert table.rule("GET", "/files/secret") == WRITE


def test_head_is_as_get() -> None:
    """A row for any method does not come before GET's own; a row of HEAD's own does."""
    table = RouteTable({"GET /files/secret": WRITE, "* /*": READ, "HEAD /files/own": READ, "GET /files/own": WRITE})
    assert table.rule("HEAD", "/files/secret") == WRITE
    assert table.rule("HEAD", "/files/own") == READ
    assert table.rule("HEAD", "/else") == READ
