"""Certificates that are replaced while the service goes on."""

from __future__ import annotations

import contextlib
import shutil
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
import trustme

from tests.installation import ANY, Installation
from tests.transport.machines import CALL_SECONDS, Files, connected, health, issue, post, presented, put


class Load:
    """Calls without an end, each kind in a thread: over a kept connection, over new ones, over new HTTPS ones."""

    def __init__(self, service: Installation, files: Files) -> None:
        self._service, self._files = service, files
        self._enough = threading.Event()
        self.counts = dict.fromkeys(("kept", "new", "https"), 0)
        self.failures: list[BaseException] = []
        self._threads = [threading.Thread(target=self._run, args=(kind,), daemon=True) for kind in self.counts]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._enough.set()
        for thread in self._threads:
            thread.join(CALL_SECONDS)

    def _run(self, kind: str) -> None:
        try:
            with self._connected() as kept:
                while not self._enough.is_set():
                    self._call(kind, kept)
                    self.counts[kind] += 1
        except BaseException as failure:
            self.failures.append(failure)

    def _connected(self) -> contextlib.AbstractContextManager[grpc.Channel]:
        return connected(self._service.started.grpc_address, self._files.trusting)

    def _call(self, kind: str, kept: grpc.Channel) -> None:
        if kind == "kept":
            issue(kept, self._service)
        elif kind == "new":
            with self._connected() as channel:
                health(channel)
        else:
            assert post(self._service, self._files) == 200

    @property
    def enough(self) -> bool:
        return sum(self.counts.values()) >= 400 and min(self.counts.values()) >= 20


def test_certificates_replaced_under_load(service: Installation, files: Files) -> None:
    """While certificates are replaced, calls over old and over new connections, gRPC and HTTPS, all succeed; and each
    new connection is shown the new one."""
    gateway_address = service.started.gateway_address
    assert gateway_address is not None
    replaced = 0
    with Load(service, files) as load:
        while not load.failures and (replaced < 10 or not load.enough):
            serial = files.replace()
            assert presented(service.started.grpc_address) == serial
            assert presented(gateway_address, "http/1.1") == serial
            replaced += 1
    assert load.failures == []
    print(f"{replaced} replaced; calls {load.counts}")


@pytest.mark.parametrize("fault", ["expired", "another's key", "half-written", "gone", "nonsense"])
def test_what_cannot_be_used_is_not(service: Installation, files: Files, fault: str) -> None:
    """A replacement that can't be used leaves the old certificate in its place, is logged as one error, and the next
    one that can be used is taken."""
    serial = files.replace()
    grpc_address = service.started.grpc_address
    assert presented(grpc_address) == serial
    before = service.log.getvalue().count("certificate not replaced")
    content = files.certificate.read_bytes()
    if fault == "expired":
        now = datetime.now(UTC)
        dates = {"not_before": now - timedelta(days=2), "not_after": now - timedelta(days=1)}
        made = files.ca.issue_cert("127.0.0.1", **dates)
        both = made.private_key_pem.bytes() + made.cert_chain_pems[0].bytes()  # at once, as a mounted Secret changes
        shutil.copy(files.key, files.folder / "kept.key")
        put(files.key, both)
        put(files.certificate, both)
    elif fault == "another's key":
        put(files.key, files.ca.issue_cert("127.0.0.1").private_key_pem.bytes())
    elif fault == "half-written":
        put(files.certificate, content[: len(content) // 2])
    elif fault == "gone":
        files.certificate.unlink()
    else:
        put(files.certificate, b"nonsense")
    for _ in range(3):
        assert presented(grpc_address) == serial
        assert post(service, files) == 200
    said = service.log.getvalue()
    assert said.count("certificate not replaced") == before + 1
    assert "PRIVATE KEY" not in said
    serial = files.replace()
    assert presented(grpc_address) == serial


def test_clients_ca_is_replaced(tmp_path: Path) -> None:
    """The CAs of clients are read again too: one that is taken out is refused at the next connection."""
    files, clients = Files(tmp_path), trustme.CA()
    trusted = tmp_path / "clients.pem"
    put(trusted, clients.cert_pem.bytes())
    settings = files.settings | {"grpc_mtls_address": ANY, "mtls_client_ca_file": trusted}
    with Installation(tmp_path / "service", **settings) as service:
        with connected(service.started.mtls_address, files.client(ca=clients)) as channel:
            assert issue(channel, service)
        put(trusted, trustme.CA().cert_pem.bytes())
        with connected(service.started.mtls_address, files.client(ca=clients)) as channel:
            with pytest.raises(grpc.RpcError) as refused:
                issue(channel, service)
            assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
