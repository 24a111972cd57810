"""Kubernetes Secrets, through an API that is as strict as the real one: written whole, and nothing else is touched."""

from __future__ import annotations

import itertools
import json
import logging
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme

from artstore_grpc.errors import InvalidRequest
from artstore_grpc.settings import InvalidSettings
from artstore_grpc.sinks.kubernetes import ATTEMPTS, LABEL, MANAGER, MAX_ANSWER, Cluster, KubernetesSink
from artstore_grpc.sinks.protocol import Delivery
from tests.https import HttpsServer, Request, Response
from tests.kubernetes_api import KubernetesApi, Refusal
from tests.sinks.deliveries import CLIENT_ID, assert_silent, delivery, failing, file_of, now

TOKEN = "eyJhbGciOiJSUzI1NiJ9.token-canary"
SPACE = "storage"
DEFAULT = "sa-prod-ingester-0a1b2c3d"
OURS = {"labels": {LABEL: MANAGER}}
SECOND = timedelta(seconds=1)


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(TOKEN + "\n")
    return path


@pytest.fixture
def api(ca: trustme.CA) -> Iterator[KubernetesApi]:
    with KubernetesApi(ca, tokens={TOKEN}, namespaces={SPACE, "query"}) as running:
        yield running


@pytest.fixture
def sink(api: KubernetesApi, token_file: Path, trusted: Path) -> KubernetesSink:
    return KubernetesSink(Cluster(api.url, token_file, trusted), (SPACE,), now=now)


def at(api: KubernetesApi, token_file: Path, trusted: Path, **options: Any) -> KubernetesSink:
    namespaces = options.pop("namespaces", (SPACE,))
    return KubernetesSink(Cluster(api.url, token_file, trusted), namespaces, now=now, **options)


def write(path: Path, content: str | None) -> None:
    """Replaces a file; None removes it."""
    path.unlink()
    if content is not None:
        path.write_text(content)


def assert_holds(api: KubernetesApi, sent: Delivery, name: str = DEFAULT, namespace: str = SPACE) -> None:
    """The Secret has the client's file and its two values."""
    values = api.values(namespace, name)
    assert json.loads(values["credentials.json"]) == file_of(sent)
    assert values["client_id"] == sent.client_id.encode()
    assert values["client_secret"] == sent.client_secret.encode()


async def test_a_secret_is_made(api: KubernetesApi, sink: KubernetesSink) -> None:
    """Absent: it is created after the client_id, Opaque, labelled as ours; every request carries the token."""
    sent = delivery()
    await sink.deliver(sent)
    await sink.close()
    assert_holds(api, sent)
    made = api.secret(SPACE, DEFAULT)
    assert made is not None
    assert made["type"] == "Opaque"
    assert made["metadata"]["labels"] == {LABEL: MANAGER}
    assert api.verbs == ["get", "create"]
    assert {each.headers["authorization"] for each in api.requests} == {f"Bearer {TOKEN}"}
    assert api.requests[1].path == f"/api/v1/namespaces/{SPACE}/secrets?fieldManager=artstore-identity"


async def test_a_secret_is_changed(api: KubernetesApi, sink: KubernetesSink) -> None:
    """Present: it is replaced at the version it was read at; other keys, labels, annotations and owners survive."""
    metadata = {
        "labels": {LABEL: MANAGER, "team": "storage"},
        "annotations": {"note": "kept"},
        "finalizers": ["example.com/hold"],
        "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u"}],
    }
    before = api.put(SPACE, DEFAULT, data={"other.txt": b"kept", "client_id": CLIENT_ID.encode()}, metadata=metadata)
    sent = delivery()
    await sink.deliver(sent)
    assert api.verbs == ["get", "update"]
    put = json.loads(api.requests[1].body)
    assert put["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]
    assert_holds(api, sent)
    after = api.secret(SPACE, DEFAULT)
    assert after is not None
    assert api.values(SPACE, DEFAULT)["other.txt"] == b"kept"
    assert {key: after["metadata"][key] for key in metadata} == metadata
    assert after["metadata"]["uid"] == before["metadata"]["uid"]


async def test_the_same_delivery_again(api: KubernetesApi, sink: KubernetesSink) -> None:
    """It costs a look: nothing is written, so that nobody who watches the Secret is woken."""
    sent = delivery()
    await sink.deliver(sent)
    version = api.secret(SPACE, DEFAULT)
    await sink.deliver(sent)
    assert api.verbs == ["get", "create", "get"]
    assert api.secret(SPACE, DEFAULT) == version
    await sink.deliver(following := delivery())
    assert_holds(api, following)


async def test_a_secret_without_data(api: KubernetesApi, sink: KubernetesSink) -> None:
    """An empty one that an operator made for us, so that no right to create is needed."""
    api.put(SPACE, DEFAULT, metadata=OURS)
    api.forbidden = {"create"}
    await sink.deliver(sent := delivery())
    assert_holds(api, sent)


async def test_a_destination(api: KubernetesApi, token_file: Path, trusted: Path) -> None:
    """`namespace/name` says where, in a sink of several namespaces."""
    sink = at(api, token_file, trusted, namespaces=(SPACE, "query"))
    await sink.deliver(sent := delivery(destination="query/identity.ingester"))
    assert_holds(api, sent, "identity.ingester", "query")
    sent = delivery()
    with failing(sent, permanent=True, says="another destination"):
        await sink.deliver(sent)


GOOD = ["storage/a", "query/a.b-c", f"storage/{'x' * 253}", "storage/0"]
BAD = [
    "",
    "a",
    "/a",
    "storage/",
    "storage/a/b",
    "storage/..",
    "storage/A",
    "storage/a_b",
    "storage/-a",
    "storage/a.",
    "storage/a..b",
    "storage/a?x=1",
    "storage/a%2fb",
    "storage/a\n",
    f"storage/{'x' * 254}",
    "kube-system/a",
    "Storage/a",
    "../storage/a",
    "storage /a",
]


@pytest.mark.parametrize("destination", GOOD)
def test_destinations_that_are_fine(api: KubernetesApi, token_file: Path, trusted: Path, destination: str) -> None:
    at(api, token_file, trusted, namespaces=(SPACE, "query")).check(destination)


@pytest.mark.parametrize("destination", BAD)
async def test_destinations_that_are_not(api: KubernetesApi, token_file: Path, trusted: Path, destination: str) -> None:
    """Refused in a policy, and at a delivery without a request: the settings may have changed since."""
    sink = at(api, token_file, trusted, namespaces=(SPACE, "query"))
    with pytest.raises(InvalidRequest) as caught:
        sink.check(destination)
    assert [each.field for each in caught.value.violations] == ["rotation_policy.destination"]
    sent = delivery(destination=destination)
    with failing(sent, permanent=True):
        await sink.deliver(sent)
    assert not api.requests


@pytest.mark.parametrize("client_id", ["a/b", "../../kube-system/secrets/x", "Ünlaut", "a b", "x" * 254, ""])
async def test_client_ids_that_make_no_name(api: KubernetesApi, sink: KubernetesSink, client_id: str) -> None:
    """An imported client_id may be of any form; it can't lead elsewhere."""
    sink.check("")
    sent = delivery(client_id=client_id)
    with failing(sent, permanent=True, says="client_id"):
        await sink.deliver(sent)
    assert not api.requests


async def test_somebody_writes_in_between(api: KubernetesApi, sink: KubernetesSink) -> None:
    """A conflict: it is read again, and what the other has written stays."""
    api.put(SPACE, DEFAULT, metadata=OURS)
    others = iter([{"first": b"1"}, {"second": b"2"}])

    def interfere(request: Request) -> None:
        if request.method == "PUT" and (data := next(others, None)):
            api.put(SPACE, DEFAULT, data=data)

    api.before = interfere
    await sink.deliver(sent := delivery())
    assert api.verbs == ["get", "update"] * 3
    assert_holds(api, sent)
    values = api.values(SPACE, DEFAULT)
    assert (values["first"], values["second"]) == (b"1", b"2")


async def test_somebody_always_writes_in_between(api: KubernetesApi, sink: KubernetesSink) -> None:
    """After a bounded number of conflicts it is a failure, which a later attempt may heal."""
    api.put(SPACE, DEFAULT, metadata=OURS)
    numbers = itertools.count()

    def interfere(request: Request) -> None:
        if request.method == "PUT":
            api.put(SPACE, DEFAULT, data={"other": b"%d" % next(numbers)})

    api.before = interfere
    sent = delivery()
    with failing(sent, says="changed by others"):
        await sink.deliver(sent)
    assert api.verbs == ["get", "update"] * ATTEMPTS
    assert_silent(json.dumps(api.secret(SPACE, DEFAULT)), sent)


async def test_somebody_creates_in_between(api: KubernetesApi, sink: KubernetesSink) -> None:
    """Another one of that name, made since it was missing: it is read, and changed if it is ours."""

    def interfere(request: Request) -> None:
        if request.method == "POST":
            api.put(SPACE, DEFAULT, metadata=OURS, data={"other": b"kept"})

    api.before = interfere
    await sink.deliver(sent := delivery())
    assert api.verbs == ["get", "create", "get", "update"]
    assert_holds(api, sent)
    assert api.values(SPACE, DEFAULT)["other"] == b"kept"


@pytest.mark.parametrize("again", [False, True])
async def test_somebody_deletes_in_between(api: KubernetesApi, sink: KubernetesSink, again: bool) -> None:
    """Deleted since it was read, and perhaps made anew: by its uid it isn't the same one, and the new one is read."""
    api.put(SPACE, DEFAULT, metadata=OURS, data={"old": b"gone"})
    once = iter([True])

    def interfere(request: Request) -> None:
        if request.method == "PUT" and next(once, False):
            api.delete(SPACE, DEFAULT)
            if again:
                api.put(SPACE, DEFAULT, metadata=OURS)

    api.before = interfere
    await sink.deliver(sent := delivery())
    assert_holds(api, sent)
    assert "old" not in api.values(SPACE, DEFAULT)


@pytest.mark.parametrize("labels", [{}, {LABEL: "Helm"}, None])
async def test_what_is_somebody_elses_stays(
    api: KubernetesApi, token_file: Path, trusted: Path, labels: dict[str, str] | None
) -> None:
    """A Secret that isn't labelled as ours is left alone; a sink that adopts writes to it, and leaves its labels."""
    before = api.put(SPACE, DEFAULT, metadata={"labels": labels}, data={"password": b"theirs"})
    sent = delivery()
    with failing(sent, permanent=True, says="isn't labelled"):
        await at(api, token_file, trusted).deliver(sent)
    assert api.verbs == ["get"]
    assert api.secret(SPACE, DEFAULT) == before
    await at(api, token_file, trusted, adopt=True).deliver(sent)
    assert_holds(api, sent)
    assert api.values(SPACE, DEFAULT)["password"] == b"theirs"
    after = api.secret(SPACE, DEFAULT)
    assert after is not None
    assert after["metadata"]["labels"] == labels


async def test_another_accounts_credentials(api: KubernetesApi, token_file: Path, trusted: Path) -> None:
    """Two policies that name one Secret: the second account doesn't overwrite the first one's, unless told to adopt."""
    first, second = delivery(destination="storage/one"), delivery(destination="storage/one", client_id="sa_other")
    await at(api, token_file, trusted).deliver(first)
    with failing(second, permanent=True, says="another account's"):
        await at(api, token_file, trusted).deliver(second)
    assert_holds(api, first, "one")
    await at(api, token_file, trusted, adopt=True).deliver(second)
    assert_holds(api, second, "one")


@pytest.mark.parametrize("fields", [{"immutable": True}, {"type": "kubernetes.io/dockerconfigjson"}])
@pytest.mark.parametrize("adopt", [False, True])
async def test_secrets_that_cannot_be_ours(
    api: KubernetesApi, token_file: Path, trusted: Path, fields: dict[str, Any], adopt: bool
) -> None:
    """An immutable one, or one of a type that means something else: a clear sentence, and no write."""
    api.put(SPACE, DEFAULT, metadata=OURS, **fields)
    sent = delivery()
    with failing(sent, permanent=True, says="immutable, or not Opaque"):
        await at(api, token_file, trusted, adopt=adopt).deliver(sent)
    assert api.verbs == ["get"]


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
