"""What strangers read: metadata, keys, probes, the API's description."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import httpx
import pytest
from artstore.identity.v1 import token_service_pb2 as pb

from artstore_grpc.errors import Unavailable
from artstore_grpc.gateway.bindings import bindings
from tests.gateway.conftest import Door, Stage

JWKS = "/.well-known/jwks.json"
METADATA = "/.well-known/oauth-authorization-server"


def test_metadata(url: str, stage: Stage, http: httpx.Client) -> None:
    """RFC 8414 §3.2; `response_types_supported` is there though empty."""
    response = http.get(url + METADATA)
    body = response.json()
    assert (body["issuer"], body["response_types_supported"]) == (stage.installation.issuer, [])
    assert [] not in [value for name, value in body.items() if name != "response_types_supported"]
    assert "" not in body.values()
    assert response.headers["cache-control"] == "public, max-age=300"


async def test_the_key_set_is_rfc_7517s_alone(door: Door) -> None:
    """§5: `keys`, without empty members; how long it may be kept is in the header."""
    door.backend.answer = pb.GetJsonWebKeySetResponse(keys=[pb.JsonWebKey(kty="RSA", n="n", e="e", kid="k")])
    door.backend.answer.max_age.seconds = 77
    response = await door.client.get(JWKS)
    assert response.json() == {"keys": [{"kty": "RSA", "kid": "k", "n": "n", "e": "e"}]}
    assert response.headers["cache-control"] == "public, max-age=77"


@pytest.mark.parametrize("path", [JWKS, METADATA, "/openapi.json", "/docs"])
def test_a_cache_that_has_it_is_told_so(path: str, url: str, http: httpx.Client) -> None:
    """RFC 9110 §13.1.2, §9.3.2: a strong ETag, 304 for one who has it, HEAD as GET without the body."""
    response = http.get(url + path)
    etag = response.headers["etag"]
    assert re.fullmatch(r'"[0-9a-f]+"', etag)
    for known in (etag, f'"x", W/{etag}', "*"):
        unchanged = http.get(url + path, headers={"If-None-Match": known})
        assert (unchanged.status_code, unchanged.content, unchanged.headers["etag"]) == (304, b"", etag)
        assert unchanged.headers["cache-control"] == response.headers["cache-control"]
    assert http.get(url + path, headers={"If-None-Match": '"other"'}).status_code == 200
    head = http.head(url + path)
    assert (head.content, head.headers["content-length"]) == (b"", str(len(response.content)))


def test_probes(url: str, http: httpx.Client) -> None:
    """Alive and ready; never from a cache."""
    for path, status in (("/health/live", "live"), ("/health/ready", "ready")):
        response = http.get(url + path)
        assert (response.status_code, response.json()) == (200, {"status": status})
        assert response.headers["cache-control"] == "no-store"


async def test_unready_is_503(door: Door) -> None:
    """Alive but unready: the balancer looks elsewhere."""
    door.backend.answer = Unavailable()
    ready, live = await door.client.get("/health/ready"), await door.client.get("/health/live")
    assert (ready.status_code, ready.json(), live.status_code) == (503, {"status": "unready"}, 200)


async def test_errors_are_not_cached(door: Door) -> None:
    """A key set that could not be read must not be remembered."""
    door.backend.answer = Unavailable()
    response = await door.client.get(JWKS)
    assert (response.status_code, response.headers["cache-control"]) == (503, "no-store")


def references(node: Any) -> set[str]:
    if isinstance(node, dict):
        own = {node["$ref"]} if "$ref" in node else set()
        return own.union(*(references(value) for value in node.values()))
    return set().union(*(references(value) for value in node)) if isinstance(node, list) else set()


async def test_openapi_describes_every_route(door: Door) -> None:
    """All bindings, unique operation ids, descriptions everywhere, no dangling reference, both dialects' errors."""
    document = (await door.client.get("/openapi.json")).json()
    assert document["openapi"].startswith("3.1")
    described = {(verb.upper(), path) for path, verbs in document["paths"].items() for verb in verbs}
    assert described >= {(binding.verb, binding.route_template) for binding in bindings()}
    operations = [operation for verbs in document["paths"].values() for operation in verbs.values()]
    assert len({operation["operationId"] for operation in operations}) == len(operations)
    assert all(operation["summary"].endswith(".") for operation in operations)
    for reference in references(document):
        found = document
        for part in reference.removeprefix("#/").split("/"):
            found = found[part]
    schemas = document["components"]["schemas"]
    assert {"OAuthError", "ApiError", "ServiceAccount"} <= set(schemas)
    account = schemas["ServiceAccount"]
    assert account["required"] == ["name", "role"]
    assert account["properties"]["id"]["readOnly"] is True
    assert account["properties"]["role"]["enum"] == ["admin", "user", "auditor", "readonly"]
    assert all(field["description"] for field in account["properties"].values())


async def test_every_described_path_exists(door: Door) -> None:
    """What the document says can be asked for."""
    document = (await door.client.get("/openapi.json")).json()
    for path, verbs in document["paths"].items():
        allowed = (await door.client.options(path.replace("{id}", "x"))).headers["allow"]
        assert {verb.upper() for verb in verbs} <= set(allowed.split(", ")), path


class Page(HTMLParser):
    """What a page refers to, and whether its tags close."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in ("meta", "link", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


async def test_docs_are_one_plain_page(door: Door) -> None:
    """No script, nothing from elsewhere, a policy that forbids both; language and landmarks for readers."""
    response = await door.client.get("/docs")
    page = Page()
    page.feed(response.text)
    assert not page.open
    tags = {tag for tag, _, _ in page.attributes}
    assert "script" not in tags
    ids = {value for _, name, value in page.attributes if name == "id"}
    links = [value or "" for _, name, value in page.attributes if name in ("href", "src")]
    assert all(link == "/openapi.json" or link.removeprefix("#") in ids for link in links)
    assert ("html", "lang", "en") in page.attributes
    policy = response.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy
