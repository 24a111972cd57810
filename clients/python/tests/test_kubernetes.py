"""Credentials in a Kubernetes Secret, against a local API server: what is asked, kept, and said of each refusal."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trustme
from artstore.identity import CredentialsError, CredentialsProvider, CredentialsStore, KubernetesSecret
from clocks import Clock
from cluster import PATH, Cluster, running

CONTENT = {
    "version": 1,
    "issuer": "https://identity.example",
    "client_id": "sa_dev_test_00000000",
    "client_secret": "the-secret",
}


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """One with the credentials, and another key beside them."""
    with running(tmp_path) as made:
        made.put("credentials.json", json.dumps(CONTENT).encode())
        made.put("tls.key", b"another key")
        yield made


def secret(cluster: Cluster, **options: Any) -> KubernetesSecret:
    waits: list[float] = []
    made = KubernetesSecret("storage", "ingester", api=cluster.url, pod=cluster.pod, sleep=waits.append, **options)
    made.waits = waits  # type: ignore[attr-defined]
    return made


def test_what_is_read_and_how(cluster: Cluster) -> None:
    """The document under its key, by the pod's token, over TLS by the cluster's CA."""
    store = secret(cluster)
    provider: CredentialsProvider = store
    assert isinstance(store, CredentialsStore)
    assert provider.current().client_secret == "the-secret"
    ((method, path, headers, _),) = cluster.requests
    assert (method, path, headers["Authorization"]) == ("GET", PATH, "Bearer pod-token")
    assert "the-secret" not in repr(store)


def test_the_pods_own_namespace(cluster: Cluster) -> None:
    """Where none is named."""
    assert KubernetesSecret("", "ingester", api=cluster.url, pod=cluster.pod).current().client_secret == "the-secret"


def test_a_replacement(cluster: Cluster) -> None:
    """On the version that was read, as a merge patch; the Secret's other keys stay."""
    store = secret(cluster)
    document, version = store.read()
    assert store.replace(replace(document, client_secret="new"), version)
    assert cluster.content()["client_secret"] == "new"
    assert set(cluster.data or ()) == {"credentials.json", "tls.key"}
    method, _, headers, body = cluster.requests[-1]
    assert (method, headers["Content-Type"]) == ("PATCH", "application/merge-patch+json")
    assert json.loads(body)["metadata"] == {"resourceVersion": version}
    assert store.current().client_secret == "new"


@pytest.mark.parametrize("fault", [None, 409, 410])
def test_a_conflict(cluster: Cluster, fault: int | None) -> None:
    """Somebody else was faster: nothing is changed, and the caller reads again."""
    store = secret(cluster)
    document, version = store.read()
    if fault is None:
        cluster.put("tls.key", b"renewed")
    else:
        cluster.faults = [fault]
    assert not store.replace(replace(document, client_secret="mine"), version)
    assert cluster.content()["client_secret"] == "the-secret"
    document, version = store.read()
    assert store.replace(replace(document, client_secret="mine"), version)


def test_of_many_only_one_swaps(cluster: Cluster) -> None:
    """Eight replicas, five times each: every version is replaced at most once."""
    swapped: list[str] = []

    def swap(number: int) -> None:
        store = secret(cluster)
        for turn in range(5):
            document, version = store.read()
            if store.replace(replace(document, client_secret=f"{number}-{turn}"), version):
                swapped.append(version)

    threads = [threading.Thread(target=swap, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(swapped) == len(set(swapped)) > 0


def test_an_answer_that_was_lost(cluster: Cluster) -> None:
    """The change may have been made: it is then a conflict, and what is read next is our own."""
    store = secret(cluster)
    document, version = store.read()
    cluster.lose_answers = 1
    assert not store.replace(replace(document, client_secret="new"), version)
    assert store.read()[0].client_secret == "new"


@pytest.mark.parametrize("faults", [[503], [500, 503, 429], [429]])
def test_what_may_pass_is_tried_again(cluster: Cluster, faults: list[int]) -> None:
    """Up to three times, with waits that double; Retry-After is kept."""
    cluster.faults = list(faults)
    store = secret(cluster)
    assert store.read()[0].client_secret == "the-secret"
    waits: list[float] = store.waits  # type: ignore[attr-defined]
    assert len(waits) == len(faults)
    assert waits == [max(0.25 * 2**n, 1.0 if fault == 429 else 0.0) for n, fault in enumerate(faults)]


def test_a_token_that_was_replaced(cluster: Cluster) -> None:
    """Kubernetes projects a new one each hour: after a 401 the file is read again."""
    store = secret(cluster)
    store.read()
    cluster.tokens = {"next-token"}
    answer = cluster.answer

    def answered(*request: Any) -> Any:
        given = answer(*request)
        (cluster.pod / "token").write_text("next-token")  # between the first attempt and the second
        return given

    cluster.answer = answered  # type: ignore[method-assign]
    assert store.read()[0].client_secret == "the-secret"
    assert cluster.methods() == ["GET", "GET", "GET"]


def says(cluster: Cluster, text: str, **options: Any) -> None:
    with pytest.raises(CredentialsError) as caught:
        secret(cluster, **options).read()
    assert text in str(caught.value)
    assert "the-secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("faults", "text", "attempts"),
    [
        ([401, 401], "the pod's token was refused", 2),
        ([403], "`get` and `patch` on this Secret by a Role", 1),
        ([404], "create it, with the credentials as JSON", 1),
        ([503] * 4, "answered 503", 4),
        ([429] * 4, "answered 429", 4),
        ([410], "answered 410", 1),
    ],
)
def test_what_a_refusal_says(cluster: Cluster, faults: list[int], text: str, attempts: int) -> None:
    """What is wrong and what to do, after as many attempts as can help."""
    cluster.faults = list(faults)
    says(cluster, text)
    assert len(cluster.requests) == attempts


def test_an_immutable_secret(cluster: Cluster) -> None:
    """A change that the cluster refuses as invalid is no conflict."""
    store = secret(cluster)
    document, version = store.read()
    cluster.faults = [422]
    with pytest.raises(CredentialsError, match="immutable"):
        store.replace(document, version)


def test_content_that_is_no_document(cluster: Cluster) -> None:
    """No such key, no JSON, no base64, another issuer, and an answer of something that is no cluster."""
    says(cluster, "has no key 'other'", key="other")
    says(cluster, "is no JSON", key="tls.key")
    says(cluster, "is expected", issuer="https://other.example")
    assert cluster.data is not None
    cluster.data["credentials.json"] = "*"
    says(cluster, "not in base64")
    cluster.data = None
    says(cluster, "create it")
    cluster.data = {}
    says(cluster, "has no key")
    cluster.html = True
    says(cluster, "is 127.0.0.1 the cluster's API?")


def test_a_server_with_another_certificate(cluster: Cluster) -> None:
    """The pod's token is not sent to it."""
    trustme.CA().cert_pem.write_to_path(cluster.pod / "ca.crt")
    says(cluster, "can't be reached")
    assert not cluster.requests


@pytest.mark.parametrize("name", ["token", "ca.crt"])
def test_a_folder_that_is_no_pods(cluster: Cluster, name: str) -> None:
    """Says which file is missing."""
    (cluster.pod / name).unlink()
    says(cluster, str(cluster.pod / name))


def test_no_token_without_tls() -> None:
    """A plain http address is refused when the store is made."""
    with pytest.raises(ValueError, match="https"):
        KubernetesSecret("storage", "ingester", api="http://127.0.0.1:1")


def test_memory_spares_the_cluster(cluster: Cluster) -> None:
    """Within half a minute it is not asked again; afterwards, and after a refused secret, it is. While it is down, what
    it said last is good."""
    clock = Clock()
    store = secret(cluster, clock=clock)
    for _ in range(5):
        store.current()
    assert len(cluster.requests) == 1
    cluster.put("credentials.json", json.dumps(CONTENT | {"client_secret": "second"}).encode())
    assert store.current().client_secret == "the-secret"
    assert store.reread().client_secret == "second"
    clock.advance(31)
    cluster.faults = [503] * 4
    assert store.current().client_secret == "second"
    assert len(cluster.requests) == 6
