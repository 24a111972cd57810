"""What a cluster may refuse and how it may fail: each failure in one sentence, with what may be tried again."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme

from artstore_grpc.settings import InvalidSettings
from artstore_grpc.sinks.kubernetes import MAX_ANSWER, Cluster, KubernetesSink
from tests.https import HttpsServer, Request, Response
from tests.kubernetes_api import KubernetesApi, Refusal
from tests.sinks.clusters import DEFAULT, OURS, SECOND, SPACE, TOKEN, assert_holds, at, write
from tests.sinks.deliveries import assert_silent, delivery, failing, now


async def test_the_token_is_read_at_each_use(api: KubernetesApi, sink: KubernetesSink, token_file: Path) -> None:
    """A projected token that was replaced since the start is the one that is sent."""
    api.tokens = {"fresh"}
    write(token_file, "fresh")
    await sink.deliver(delivery())
    assert {each.headers["authorization"] for each in api.requests} == {"Bearer fresh"}


async def test_the_token_is_replaced_on_the_way(api: KubernetesApi, sink: KubernetesSink, token_file: Path) -> None:
    """A 401 to a token that the file no longer has: the new one is tried, once."""

    def rotate(request: Request) -> None:
        if request.headers["authorization"] == f"Bearer {TOKEN}":
            api.tokens = {"fresh"}
            token_file.write_text("fresh")

    api.before = rotate
    await sink.deliver(sent := delivery())
    assert_holds(api, sent)
    assert api.verbs == ["get", "get", "create"]


async def test_a_token_that_is_not_accepted(api: KubernetesApi, sink: KubernetesSink, token_file: Path) -> None:
    """A 401 to the token that there is: a failure that says which file; it may be replaced, so it isn't permanent."""
    api.tokens = set()
    sent = delivery()
    with failing(sent, says=f"doesn't accept the token in {token_file}"):
        await sink.deliver(sent)
    assert len(api.requests) == 1


async def test_two_tokens_that_are_not_accepted(api: KubernetesApi, sink: KubernetesSink, token_file: Path) -> None:
    """A token that changes at every look isn't tried for ever."""
    numbers = itertools.count()
    api.tokens = set()
    api.before = lambda request: write(token_file, f"token-{next(numbers)}")
    sent = delivery()
    with failing(sent, says="doesn't accept"):
        await sink.deliver(sent)
    assert len(api.requests) == 2


@pytest.mark.parametrize("content", ["", "two words", "line\nline", "é", None])
async def test_no_token(api: KubernetesApi, sink: KubernetesSink, token_file: Path, content: str | None) -> None:
    """A file that is gone or holds no token: nothing is sent, and no header is forged by it."""
    write(token_file, content)
    sent = delivery()
    with failing(sent, says="can't be read as a token"):
        await sink.deliver(sent)
    assert not api.requests
    with pytest.raises(InvalidSettings, match="can't be read as a token"):
        KubernetesSink(Cluster("https://127.0.0.1:1", token_file, None), (SPACE,), now=now)


@pytest.mark.parametrize(("verb", "present"), [("get", False), ("create", False), ("update", True)])
async def test_what_roles_forbid(api: KubernetesApi, sink: KubernetesSink, verb: str, present: bool) -> None:
    """A 403 names the verb and the Secret that a role must allow."""
    if present:
        api.put(SPACE, DEFAULT, metadata=OURS)
    api.forbidden = {verb}
    sent = delivery()
    with failing(sent, permanent=True, says=f"forbids us to {verb} the Secret {SPACE}/{DEFAULT}"):
        await sink.deliver(sent)


async def test_no_namespace(api: KubernetesApi, token_file: Path, trusted: Path) -> None:
    """A namespace that the settings list and the cluster hasn't."""
    sent = delivery()
    with failing(sent, permanent=True, says="no namespace gone"):
        await at(api, token_file, trusted, namespaces=("gone",)).deliver(sent)


FAILURES: list[tuple[int, dict[str, str], bool, timedelta | None]] = [
    (429, {"retry_after": "7"}, False, 7 * SECOND),
    (500, {}, False, None),
    (503, {"retry_after": "1"}, False, SECOND),
    (504, {}, False, None),
    (422, {}, True, None),
    (400, {}, True, None),
]


@pytest.mark.parametrize("method", ["GET", "POST", "PUT"])
@pytest.mark.parametrize(("status", "headers", "permanent", "after"), FAILURES, ids=str)
async def test_failures(
    api: KubernetesApi, sink: KubernetesSink, method: str, status: int, headers: Any, permanent: bool, after: Any
) -> None:
    """Each status at each step: whether another attempt may help, and when; what the API says is not repeated."""
    sent = delivery()
    if method == "PUT":
        api.put(SPACE, DEFAULT, metadata=OURS)

    def fail(request: Request) -> None:
        if request.method == method:
            raise Refusal(status, "Reason", f"it quotes {request.body!r}", **headers)

    api.before = fail
    with failing(sent, permanent=permanent, retry_after=after, says=f"answered {status}"):
        await sink.deliver(sent)
    assert api.requests[-1].method == method


async def test_a_stranger_with_a_certificate(token_file: Path, trusted: Path) -> None:
    """A server that the cluster's authority didn't sign gets neither the token nor the secret."""
    sent = delivery()
    with KubernetesApi(trustme.CA(), tokens={TOKEN}, namespaces={SPACE}) as stranger:
        with failing(sent, says="its certificate is not accepted"):
            await at(stranger, token_file, trusted).deliver(sent)
        assert not stranger.requests


ODD = [
    b"<html>",
    b"",
    b"[]",
    b'{"kind": "SecretList", "items": []}',
    b'{"kind": "Secret"}',
    b'{"kind": "Secret", "metadata": {"labels": []}, "data": 1}',
    b"\xff",
    b"[" * 100_000,
]


@pytest.mark.parametrize("body", ODD)
async def test_answers_that_are_no_secret(ca: trustme.CA, token_file: Path, trusted: Path, body: bytes) -> None:
    """A proxy's page in place of the API: a sentence, not a traceback."""
    sent = delivery()
    with HttpsServer(lambda request: Response(200, {}, body), ca) as server, failing(sent, says="no Secret"):
        await KubernetesSink(Cluster(server.url, token_file, trusted), (SPACE,), now=now).deliver(sent)


async def test_redirects_are_not_followed(ca: trustme.CA, api: KubernetesApi, token_file: Path, trusted: Path) -> None:
    """The token goes to the server of the settings alone."""
    sent = delivery()
    with HttpsServer(lambda request: Response(307, {"location": api.url + request.path}), ca) as server:
        sink = KubernetesSink(Cluster(server.url, token_file, trusted), (SPACE,), now=now)
        with failing(sent, permanent=True, says="answered 307"):
            await sink.deliver(sent)
    assert not api.requests


async def test_an_endless_answer(ca: trustme.CA, token_file: Path, trusted: Path) -> None:
    """An answer without an end is cut off; so is one that is only slow."""
    sent = delivery()
    with HttpsServer(lambda request: Response(200, {}, itertools.repeat(b"x" * 65536)), ca) as server:
        sink = KubernetesSink(Cluster(server.url, token_file, trusted), (SPACE,), now=now)
        with failing(sent, says=f"more than {MAX_ANSWER:,} bytes"):
            await sink.deliver(sent)

    def drip() -> Iterator[bytes]:
        while not server.closing.wait(0.05):
            yield b" "

    with HttpsServer(lambda request: Response(200, {}, drip()), ca) as server:
        cluster = Cluster(server.url, token_file, trusted)
        with failing(sent, says="didn't answer within 1 s"):
            await KubernetesSink(cluster, (SPACE,), now=now, timeout=SECOND).deliver(sent)


async def test_kubectl_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """At a proxy in plain text no token is sent, since it has its own; the environment's proxies are not used."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    with KubernetesApi(None, tokens=set(), namespaces={SPACE}) as proxy:
        await KubernetesSink(Cluster(proxy.url, None, None), (SPACE,), now=now).deliver(sent := delivery())
        assert_holds(proxy, sent)
        assert not [each for each in proxy.requests if "authorization" in each.headers]


async def test_a_proxy_that_wants_a_token() -> None:
    """Where no token is sent, none is blamed."""

    def refuse(request: Request) -> None:
        raise Refusal(401, "Unauthorized", "Unauthorized")

    sent = delivery()
    with KubernetesApi(None, tokens=set(), namespaces={SPACE}) as proxy:
        proxy.before = refuse
        with failing(sent, says="doesn't accept a call without a token"):
            await KubernetesSink(Cluster(proxy.url, None, None), (SPACE,), now=now).deliver(sent)


async def test_a_path_before_the_api(api: KubernetesApi, token_file: Path, trusted: Path) -> None:
    """A server behind a prefix, as cluster managers have it."""
    cluster = Cluster(f"{api.url}/k8s/clusters/c-1/", token_file, trusted)
    sent = delivery()
    with failing(sent, permanent=True):
        await KubernetesSink(cluster, (SPACE,), now=now).deliver(sent)
    assert api.requests[0].path == f"/k8s/clusters/c-1/api/v1/namespaces/{SPACE}/secrets/{DEFAULT}"


async def test_nothing_is_logged(
    api: KubernetesApi, sink: KubernetesSink, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """Neither a secret nor the token is in any log of any library, at any level, whatever becomes of the delivery."""
    caplog.set_level(logging.DEBUG)
    sent = [delivery(), delivery(), delivery()]
    await sink.deliver(sent[0])
    await sink.deliver(sent[1])
    api.forbidden = {"update"}
    with failing(sent[2], permanent=True):
        await sink.deliver(sent[2])
    said = caplog.text + "".join(capfd.readouterr()) + repr(vars(sink))
    assert "httpcore" in said, "the libraries do log at this level"
    assert_silent(said, *sent)
    assert TOKEN not in said
