"""The log of a running process: changed by its file, and told in JSON where nobody reads along."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from artstore.identity.v1 import token_service_pb2 as pb
from artstore.identity.v1 import token_service_pb2_grpc

from tests.processes.service import Service, until

pytestmark = pytest.mark.slow

SECONDS = 10.0
KEYS = "artstore.identity.v1.TokenService/GetJsonWebKeySet"


def lines(service: Service, event: str) -> list[dict[str, Any]]:
    return [line for line in service.lines() if line["event"] == event]


def changed(service: Service, file: Path, text: str, times: int) -> None:
    """Replaces the file, and waits until the process says that it has obeyed so many times."""
    new = file.with_suffix(".new")
    new.write_text(text)
    new.rename(file)
    until(lambda: len(lines(service, "log settings changed")) == times, SECONDS, "changed")


def test_level_and_sampling_change_while_it_runs(tmp_path: Path) -> None:
    """Without a restart, back and forth; what failed is told throughout, and a malformed file changes nothing."""
    file = tmp_path / "log.json"
    environment = {"ARTSTORE_DATA_DIR": str(tmp_path / "var"), "ARTSTORE_LOG_SETTINGS_FILE": str(file)}
    with Service(tmp_path / "service", environment) as service, grpc.insecure_channel(service.grpc_address) as channel:
        tokens = token_service_pb2_grpc.TokenServiceStub(channel)

        def told(count: int) -> list[tuple[str, str]]:
            """What is told of a probe, ten calls that succeed and one that fails, by level and method or route, once it
            is as much as is to come."""
            before = len(lines(service, "call"))
            httpx.get(f"{service.gateway_url}/health/live")
            for _ in range(10):
                tokens.GetJsonWebKeySet(pb.GetJsonWebKeySetRequest())
            httpx.get(f"{service.gateway_url}/nowhere")
            until(lambda: len(lines(service, "call")) >= before + count, SECONDS, "all are told")
            found = lines(service, "call")[before:]
            return [(line["level"], line["method"] or line["route"]) for line in found]

        usual = [("info", KEYS)] * 10 + [("info", "other")]
        assert told(11) == usual
        changed(service, file, '{"level": "debug"}', 1)
        assert told(12) == [("debug", "/health/live"), *usual]
        changed(service, file, '{"sample": 1000000}', 2)
        assert told(1) == [("info", "other")]
        file.write_text('{"level": "everything"}')
        until(lambda: lines(service, "log settings not changed"), SECONDS, "refused")
        assert told(1) == [("info", "other")]
        changed(service, file, '{"level": "error"}', 3)
        assert told(0) == []
        changed(service, file, "{}", 4)
        assert told(11) == usual


def test_every_worker_process_obeys(tmp_path: Path) -> None:
    """One file, as many processes as there are."""
    file = tmp_path / "log.json"
    environment = {
        "ARTSTORE_DATA_DIR": str(tmp_path / "var"),
        "ARTSTORE_LOG_SETTINGS_FILE": str(file),
        "ARTSTORE_WORKERS": "2",
    }
    with Service(tmp_path / "service", environment) as service:
        changed(service, file, '{"level": "debug"}', 2)
        until(lambda: len(lines(service, "worker ready")) == 2, SECONDS, "both")
