"""Kubernetes Secrets, through an API that is as strict as the real one: written whole, and nothing else is touched."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from artstore_grpc.errors import InvalidRequest
from artstore_grpc.sinks.kubernetes import ATTEMPTS, LABEL, MANAGER, KubernetesSink
from tests.https import Request
from tests.kubernetes_api import KubernetesApi
from tests.sinks.clusters import DEFAULT, OURS, SPACE, TOKEN, assert_holds, at
from tests.sinks.deliveries import CLIENT_ID, assert_silent, delivery, failing


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
