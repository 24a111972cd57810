"""The sinks file: what it may say becomes sinks, what it may not refuses the start in one sentence."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
import trustme

from artstore_grpc.settings import InvalidSettings
from artstore_grpc.sinks import configuration
from artstore_grpc.sinks.configuration import KINDS, Sinks, read
from artstore_grpc.sinks.files import FilesSink
from artstore_grpc.sinks.kubernetes import Cluster, KubernetesSink
from artstore_grpc.sinks.webhook import WebhookSink
from tests.https import HttpsServer, Response
from tests.kubernetes_api import KubernetesApi
from tests.sinks.deliveries import CLIENT_ID, delivery, now

CANARY = "canary-hunter2"


class Place:
    """A folder with everything that sinks files name, and the sinks that are right."""

    def __init__(self, root: Path, trusted: Path) -> None:
        self.path = root / "sinks.json"
        self.folder = root / "credentials"
        self.folder.mkdir(mode=0o700)
        (root / "token").write_text("token")
        (root / "key").write_text(base64.b64encode(bytes(32)).decode())
        (root / "public").mkdir()
        (root / "public").chmod(0o777)
        self.root = root
        self.files = {"kind": "files", "folder": str(self.folder)}
        self.kubernetes = {
            "kind": "kubernetes",
            "namespaces": ["storage"],
            "server": "https://10.0.0.1:6443",
            "token_file": f"{root}/token",
            "ca_file": str(trusted),
        }
        self.webhook = {"kind": "webhook", "url": "https://hooks.example/x?y=z", "key_file": f"{root}/key"}

    def read(self, **sinks: Any) -> Sinks:
        self.path.write_text(json.dumps({"sinks": sinks}))
        return read(self.path, now=now)


@pytest.fixture
def place(tmp_path: Path, trusted: Path) -> Place:
    return Place(tmp_path, trusted)


async def test_one_of_each(place: Place) -> None:
    """Each kind by its name; another name is none."""
    sinks = place.read(disk=place.files, cluster=place.kubernetes, hook=place.webhook)
    assert sinks.names == ("cluster", "disk", "hook")
    kinds = {name: type(sinks.get(name)) for name in sinks.names}
    assert kinds == {"disk": FilesSink, "cluster": KubernetesSink, "hook": WebhookSink}
    assert len(KINDS) == len(kinds)
    assert sinks.get("other") is None
    await sinks.close()


async def test_they_deliver(place: Place, ca: trustme.CA, trusted: Path) -> None:
    """Each delivers where the file says, with the options that it says."""
    there = KubernetesApi(ca, tokens={"token"}, namespaces={"storage"})
    with there as api, HttpsServer(lambda request: Response(200), ca) as hook:
        api.put("storage", "theirs", data={"theirs": b"kept"})
        sinks = place.read(
            disk=place.files | {"adopt": True},
            cluster=place.kubernetes | {"server": api.url, "adopt": True},
            hook=place.webhook | {"url": hook.url, "ca_file": str(trusted)},
        )
        (place.folder / f"{CLIENT_ID}.json").write_text("theirs")
        for name, destination in (("disk", ""), ("cluster", "storage/theirs"), ("hook", "")):
            sink = sinks.get(name)
            assert sink is not None
            sink.check(destination)
            await sink.deliver(delivery(destination=destination))
        await sinks.close()
        assert json.loads((place.folder / f"{CLIENT_ID}.json").read_text())["client_id"] == CLIENT_ID
        assert api.values("storage", "theirs")["client_id"] == CLIENT_ID.encode()
        assert [each.method for each in hook.requests] == ["POST"]


async def test_none(place: Place) -> None:
    """A file without a sink is right; so is no file."""
    assert place.read().names == Sinks().names == ()
    await Sinks().close()


def test_the_pods_own_cluster(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a server it is the one that every pod is in: its name, its token, its authority, each of which a file of
    one's own may replace."""
    own = Cluster("https://kubernetes.default.svc", place.root / "token", place.root / "ca.pem")
    elsewhere = Cluster(own.server, Path("/nowhere/token"), Path("/nowhere/ca.crt"))
    assert (
        Cluster(
            own.server,
            Path("/var/run/secrets/kubernetes.io/serviceaccount/token"),
            Path("/var/run/secrets/kubernetes.io/serviceaccount/ca.crt"),
        )
        == configuration.POD
    )
    short = {"kind": "kubernetes", "namespaces": ["storage"]}
    monkeypatch.setattr(configuration, "POD", own)
    place.read(cluster=short)
    monkeypatch.setattr(configuration, "POD", elsewhere)
    with pytest.raises(InvalidSettings, match="/nowhere/token can't be read as a token"):
        place.read(cluster=short)
    place.read(cluster=short | {"token_file": str(own.token_file), "ca_file": str(own.ca_file)})


@pytest.mark.parametrize(
    "server", ["http://127.0.0.1:8001", "http://[::1]:8001", "http://localhost:8001", "HTTP://127.0.0.1"]
)
def test_kubectl_proxy(place: Place, server: str) -> None:
    """In plain text only at this machine, and without a token: a proxy there has its own."""
    proxied = {"kind": "kubernetes", "namespaces": ["storage"], "server": server}
    place.read(cluster=proxied)
    with pytest.raises(InvalidSettings, match="must be https where token_file"):
        place.read(cluster=proxied | {"token_file": f"{place.root}/token"})


WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("files", {"folder": ""}, "folder must be given"),
    ("files", {"folder": "credentials"}, "folder must be an absolute path"),
    ("files", {"folder": "/nowhere\n"}, "folder must be an absolute path"),
    ("files", {"folder": ["/"]}, "folder must be a string"),
    ("files", {"folder": "/nowhere/at/all"}, "can't be opened"),
    ("files", {"folder": "{root}/public"}, "Everybody may write"),
    ("files", {"gid": "100"}, "gid must be a whole number"),
    ("files", {"gid": True}, "gid must be a whole number"),
    ("files", {"gid": -1}, "gid must be a group's number"),
    ("files", {"gid": 2**31}, "gid must be a group's number"),
    ("files", {"adopt": "yes"}, "adopt must be true or false"),
    ("files", {"adopt": None}, "adopt must be true or false"),
    ("files", {"mode": "0644"}, "a key that this kind doesn't know; it knows kind, folder, gid, adopt."),
    ("files", {"kind": "file"}, "kind must be one of files, kubernetes, webhook"),
    ("files", {"kind": CANARY}, "kind must be one of"),
    ("files", {"kind": ""}, "kind must be one of"),
    ("kubernetes", {"namespaces": []}, "must list one namespace at least"),
    ("kubernetes", {"namespaces": "storage"}, "namespaces must be a list"),
    ("kubernetes", {"namespaces": ["*"]}, "each a DNS label"),
    ("kubernetes", {"namespaces": ["a/b"]}, "each a DNS label"),
    ("kubernetes", {"namespaces": [7]}, "each a DNS label"),
    ("kubernetes", {"namespaces": ["a", "a"]}, "twice"),
    ("kubernetes", {"server": "http://10.0.0.1:6443"}, "https, or http at a loopback address"),
    ("kubernetes", {"server": "http://localhost.example"}, "https, or http at a loopback address"),
    ("kubernetes", {"server": "10.0.0.1:6443"}, "must be a URL with a host"),
    ("kubernetes", {"server": "ftp://127.0.0.1"}, "https, or http at a loopback address"),
    ("kubernetes", {"server": "https://10.0.0.1?x=y"}, "must have no query"),
    ("kubernetes", {"server": f"https://me:{CANARY}@10.0.0.1"}, "no user, no password"),
    ("kubernetes", {"token_file": ""}, "token_file must be given once server is"),
    ("kubernetes", {"token_file": "/nowhere/token"}, "can't be read as a token"),
    ("kubernetes", {"ca_file": "/nowhere/ca"}, "can't be read as certificates"),
    ("kubernetes", {"token": CANARY}, "a key that this kind doesn't know"),
    ("kubernetes", {"insecure": True}, "a key that this kind doesn't know"),
    ("webhook", {"url": ""}, "url must be given"),
    ("webhook", {"url": "http://127.0.0.1:1/"}, "url must be https"),
    ("webhook", {"url": "https://"}, "must be a URL with a host"),
    ("webhook", {"url": "https://hooks.example:99999/"}, "must be a URL with a host"),
    ("webhook", {"url": "https://hooks.example/\n"}, "must be a URL with a host"),
    ("webhook", {"url": "https://hooks.example/ x"}, "must be a URL with a host"),
    ("webhook", {"url": f"https://{'x' * 64}.example/"}, "must be a URL with a host"),
    ("webhook", {"url": "https://hooks..example/"}, "must be a URL with a host"),
    ("webhook", {"url": "https://hooks.example:0/"}, "must be a URL with a host"),
    ("webhook", {"url": "https://[::1/"}, "must be a URL with a host"),
    ("webhook", {"url": "https://hooks.example/#x"}, "no fragment"),
    ("webhook", {"url": f"https://{CANARY}@hooks.example/"}, "no user"),
    ("webhook", {"key_file": ""}, "key_file must be given"),
    ("webhook", {"key_file": "/nowhere/key"}, "must hold a key a line"),
    ("webhook", {"key": CANARY}, "a key that this kind doesn't know"),
    ("webhook", {"ca_file": "{root}/key"}, "can't be read as certificates"),
]


@pytest.mark.parametrize(("kind", "changes", "says"), WRONG, ids=str)
def test_what_is_refused(place: Place, kind: str, changes: dict[str, Any], says: str) -> None:
    """One sentence that names the variable, the sink and the key, and repeats no value that may be a secret."""
    named = {key: v.replace("{root}", str(place.root)) if isinstance(v, str) else v for key, v in changes.items()}
    with pytest.raises(InvalidSettings) as caught:
        place.read(right=place.files, wrong=getattr(place, kind) | named)
    sentence = str(caught.value)
    assert sentence.startswith("ARTSTORE_SINKS_FILE: sink wrong: ")
    assert sentence.count("ARTSTORE_SINKS_FILE") == 1
    assert says in sentence
    assert sentence.endswith(".")
    assert "\n" not in sentence
    assert CANARY not in sentence


@pytest.mark.parametrize("name", ["", "A", "a_b", "-a", "a-", "a b", "x" * 64, CANARY + "!"])
def test_names_that_are_none(place: Place, name: str) -> None:
    with pytest.raises(InvalidSettings, match="a sink's name must be") as caught:
        place.read(**{name: place.files})
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize("name", ["a", "0", "a-b", "x" * 63])
def test_names_that_are_fine(place: Place, name: str) -> None:
    assert place.read(**{name: place.files}).names == (name,)


FORMS = {
    "nothing": b"",
    "cut off": b'{"sinks": {',
    "a list": b"[]",
    "null": b"null",
    "no sinks": b"{}",
    "a list of sinks": b'{"sinks": []}',
    "a key besides": b'{"sinks": {}, "version": 1}',
    "a misspelled key": b'{"sink": {}}',
    "a string for a sink": b'{"sinks": {"a": "files"}}',
    "a sink twice": b'{"sinks": {"a": {"kind": "files", "folder": "/"}, "a": {"kind": "files", "folder": "/"}}}',
    "a key twice": b'{"sinks": {"a": {"kind": "files", "folder": "/", "folder": "/"}}}',
    "no text": b"\xff\xfe",
    "YAML": b"sinks:\n  a:\n    kind: files\n",
    "a long file": b'{"sinks": {}}' + b" " * 2**20,
    "a deep one": b"[" * 100_000,
}


@pytest.mark.parametrize("form", FORMS)
def test_forms_that_are_none(place: Place, form: str) -> None:
    """What isn't the file's form at all is told as that."""
    place.path.write_bytes(FORMS[form])
    with pytest.raises(InvalidSettings, match="ARTSTORE_SINKS_FILE") as caught:
        read(place.path)
    assert str(caught.value).startswith(("ARTSTORE_SINKS_FILE ", "ARTSTORE_SINKS_FILE: "))
    assert str(caught.value).endswith(".")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["missing", "folder"])
def test_no_file(place: Place, kind: str) -> None:
    """The setting names nothing, or a folder."""
    path = place.folder if kind == "folder" else place.root / "missing"
    with pytest.raises(InvalidSettings, match="ARTSTORE_SINKS_FILE names a file that can't be read"):
        read(path)
