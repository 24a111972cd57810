"""What is told, and how that changes while the service runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from artstore_grpc.call import Call
from artstore_grpc.errors import InvalidClient
from artstore_grpc.telemetry.lines import end_of, tell
from artstore_grpc.telemetry.log_settings import MAX_BYTES, LogSettings
from artstore_grpc.telemetry.logs import Logger, configured
from artstore_grpc.telemetry.verbosity import MAX_SAMPLE, SLOW_SECONDS
from tests.installation import Log

CALLS = 2000


def lines(log: Log) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.getvalue().splitlines()]


def called(logger: Logger, seconds: float = 0.001, error: InvalidClient | None = None) -> None:
    tell(logger, Call("M", "127.0.0.1"), end_of(error), seconds)


def test_one_call_in_so_many_has_its_line() -> None:
    """The lines' weights add up to the calls that there were, give or take chance (±5 σ)."""
    log = Log()
    logger = configured("info", log, sample=10)
    for _ in range(CALLS):
        called(logger)
    told = lines(log)
    assert {line["weight"] for line in told} == {10}
    assert abs(len(told) - CALLS / 10) < 5 * (CALLS * 0.1 * 0.9) ** 0.5


def test_what_failed_or_was_slow_is_always_told() -> None:
    """However few of the others are; such a line stands for itself."""
    log = Log()
    logger = configured("info", log, sample=MAX_SAMPLE)
    for _ in range(20):
        called(logger)
        called(logger, error=InvalidClient(cause="wrong secret"))
        called(logger, seconds=SLOW_SECONDS)
    told = lines(log)
    assert [line["code"] for line in told] == 20 * ["UNAUTHENTICATED", "OK"]
    assert not [line for line in told if "weight" in line]


def test_without_sampling_no_line_has_a_weight() -> None:
    """Each stands for its call."""
    log = Log()
    called(configured("info", log))
    assert "weight" not in lines(log)[0]


class Followed:
    """A logger that follows a file."""

    def __init__(self, path: Path, level: str = "info") -> None:
        self.log = Log()
        self.path = path
        self.logger = configured(level, self.log)
        self.settings = LogSettings(path, self.logger)

    async def written(self, text: str) -> None:
        """As who administers it does: the file is replaced."""
        new = self.path.with_suffix(".new")
        new.write_text(text)
        new.rename(self.path)
        await self.settings.look()

    @property
    def now(self) -> tuple[str, int]:
        return self.logger.verbosity.level, self.logger.verbosity.sample

    def told(self, event: str) -> list[dict[str, Any]]:
        return [line for line in lines(self.log) if line["event"] == event]


@pytest.fixture
def followed(tmp_path: Path) -> Followed:
    return Followed(tmp_path / "log.json")


async def test_the_file_decides(followed: Followed) -> None:
    """What it names changes, the rest is as the environment has it; without a file everything is."""
    await followed.settings.look()
    assert followed.now == ("info", 1)
    await followed.written('{"level": "debug", "sample": 10}')
    assert followed.now == ("debug", 10)
    await followed.written('{"sample": 5}')
    assert followed.now == ("info", 5)
    followed.path.unlink()
    await followed.settings.look()
    assert followed.now == ("info", 1)
    changes = [(line["from"], line["to"]) for line in followed.told("log settings changed")]
    assert changes[0] == ({"level": "info", "sample": 1}, {"level": "debug", "sample": 10})
    assert len(changes) == 3


async def test_a_change_is_told_at_every_level(tmp_path: Path) -> None:
    """From `error` to `warning` too, neither of which tells what is `info`."""
    followed = Followed(tmp_path / "log.json", "error")
    await followed.written('{"level": "warning"}')
    assert len(followed.told("log settings changed")) == 1
    followed.logger.info("hidden")
    assert not followed.told("hidden")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        "{",
        "\x00",
        "[" * (MAX_BYTES - 1),
        '{"level": "loud"}',
        '{"level": ["info"]}',
        '{"level": "INFO"}',
        '{"sample": 0}',
        '{"sample": true}',
        '{"sample": 1.5}',
        '{"sample": 1000001}',
        '{"samples": 10}',
        '{"level": "debug"' + " " * MAX_BYTES + "}",
    ],
)
async def test_a_malformed_file_changes_nothing(followed: Followed, text: str) -> None:
    """It is told once; the former settings stay, and the next file counts."""
    await followed.written('{"sample": 7}')
    await followed.written(text)
    await followed.settings.look()
    assert followed.now == ("info", 7)
    assert len(followed.told("log settings not changed")) == 1
    await followed.written('{"level": "error"}')
    assert followed.now == ("error", 1)


async def test_a_file_that_cannot_be_read_changes_nothing(followed: Followed) -> None:
    """A folder in its place, say."""
    await followed.written('{"sample": 7}')
    followed.path.unlink()
    followed.path.mkdir()
    await followed.settings.look()
    assert followed.now == ("info", 7)
    assert len(followed.told("log settings not changed")) == 1


async def test_a_file_whose_mode_is_mended_is_read(followed: Followed) -> None:
    """`chmod` alone, which changes nothing that the file says, has it read again; nothing else does."""
    await followed.written("malformed")
    await followed.settings.look()
    assert len(followed.told("log settings not changed")) == 1
    followed.path.chmod(0o640)
    await followed.settings.look()
    assert len(followed.told("log settings not changed")) == 2


async def test_a_mounted_config_map_is_followed(tmp_path: Path) -> None:
    """Kubernetes replaces a symbolic link to the folder that the file is in."""
    for name, sample in (("first", 2), ("second", 3)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "log.json").write_text(f'{{"sample": {sample}}}')
    link = tmp_path / "..data"
    link.symlink_to("first")
    (tmp_path / "log.json").symlink_to("..data/log.json")
    followed = Followed(tmp_path / "log.json")
    await followed.settings.look()
    assert followed.now == ("info", 2)
    (tmp_path / "new").symlink_to("second")
    (tmp_path / "new").replace(link)
    await followed.settings.look()
    assert followed.now == ("info", 3)
