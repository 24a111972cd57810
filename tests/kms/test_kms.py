"""The client of the Kubernetes KMS v2 API, against a plugin that is a process of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
import pytest_asyncio
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from artstore_grpc.errors import KeyServiceUnavailable
from artstore_grpc.key_encryption import LocalKey, Wrapped
from artstore_grpc.kms import KmsKey, file_descriptor, unframed
from artstore_grpc.vault import WrongKey, framed, new_key, new_root
from tests.kms.running import KmsPlugin, api

CONTEXT = b"context"
BACK_SECONDS = 30.0


@pytest_asyncio.fixture
async def kms(plugin: KmsPlugin) -> AsyncIterator[KmsKey]:
    made = KmsKey(plugin.url)
    yield made
    await made.close()


def test_the_messages_are_those_of_the_api() -> None:
    """Names, numbers, types and labels of every field are those that buf compiles from the published .proto."""
    (published,) = FileDescriptorSet.FromString(api()).file
    ours = {message.name: message for message in file_descriptor().message_type}
    assert ours.keys() == {message.name for message in published.message_type}
    for message in published.message_type:
        theirs = {(f.name, f.number, f.type, f.label, f.type_name) for f in message.field}
        assert {(f.name, f.number, f.type, f.label, f.type_name) for f in ours[message.name].field} == theirs
        assert [e.options.map_entry for e in ours[message.name].nested_type] == [True] * len(message.nested_type)


async def test_a_key_comes_back(kms: KmsKey) -> None:
    """What is wrapped unwraps, never twice to the same bytes, and is not in what is stored."""
    plain = new_root()
    wrapped = await kms.wrap(plain, CONTEXT)
    assert wrapped.key_id == "kms:key-1" == await kms.current_key()
    assert await kms.unwrap(wrapped, CONTEXT) == plain
    assert plain not in wrapped.ciphertext
    assert (await kms.wrap(plain, CONTEXT)).ciphertext != wrapped.ciphertext
    assert kms.sealing_key() is None


async def test_the_context_is_authenticated(kms: KmsKey) -> None:
    """The API has no context; another one is refused all the same."""
    wrapped = await kms.wrap(new_root(), CONTEXT)
    with pytest.raises(WrongKey, match="damaged or belongs elsewhere"):
        await kms.unwrap(wrapped, b"another")


async def test_damage_is_noticed(kms: KmsKey) -> None:
    """No byte can be changed, cut off or added: it never opens, and never raises anything unforeseen."""
    whole = await kms.wrap(new_root(), CONTEXT)
    text = whole.ciphertext
    changed = [text[:at] + bytes([text[at] ^ 1]) + text[at + 1 :] for at in range(len(text))]
    for damaged in [*changed, *(text[:at] for at in range(0, len(text), 7)), b"", text + b"\0", text + framed(b"x")]:
        with pytest.raises((WrongKey, KeyServiceUnavailable)):
            await kms.unwrap(Wrapped(whole.key_id, damaged), CONTEXT)


async def test_a_service_may_change_its_key(kms: KmsKey, plugin: KmsPlugin) -> None:
    """What was wrapped before opens as long as the service keeps that key; once it is gone both keys are named."""
    plain = new_root()
    before = await kms.wrap(plain, CONTEXT)
    plugin.use("key-2")
    assert await kms.current_key() == "kms:key-2"
    assert await kms.unwrap(before, CONTEXT) == plain
    plugin.forget("key-1")
    with pytest.raises(WrongKey, match=r"kms:key-1.*kms:key-2"):
        await kms.unwrap(before, CONTEXT)


async def test_another_services_key_is_named(kms: KmsKey) -> None:
    """What another service has wrapped, or a local key, is refused with both ids."""
    with KmsPlugin("elsewhere") as other:
        there = KmsKey(other.url)
        wrapped = await there.wrap(new_root(), CONTEXT)
        await there.close()
    with pytest.raises(WrongKey, match=r"kms:elsewhere.*kms:key-1"):
        await kms.unwrap(wrapped, CONTEXT)
    local = LocalKey(new_key())
    with pytest.raises(WrongKey, match=rf"{local.id}.*kms:key-1"):
        await kms.unwrap(await local.wrap(new_root(), CONTEXT), CONTEXT)


async def test_the_same_name_is_not_the_same_key(kms: KmsKey) -> None:
    """A service that calls another key by the same name: refused, as something that may pass or as damage."""
    with KmsPlugin("key-1") as other:
        there = KmsKey(other.url)
        wrapped = await there.wrap(new_root(), CONTEXT)
        await there.close()
    with pytest.raises((WrongKey, KeyServiceUnavailable)):
        await kms.unwrap(wrapped, CONTEXT)


async def test_a_service_that_is_down_may_come_back(kms: KmsKey, plugin: KmsPlugin) -> None:
    """A plugin that isn't there is KeyServiceUnavailable, by its address; when it is back the same client works."""
    plain = new_root()
    wrapped = await kms.wrap(plain, CONTEXT)
    plugin.stop()
    for call in (kms.current_key(), kms.wrap(plain, CONTEXT), kms.unwrap(wrapped, CONTEXT)):
        with pytest.raises(KeyServiceUnavailable, match=str(plugin.socket)):
            await call
    plugin.start()
    async with asyncio.timeout(BACK_SECONDS):
        while True:
            with suppress(KeyServiceUnavailable):
                assert await kms.unwrap(wrapped, CONTEXT) == plain
                return
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("code", ["UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED"])
async def test_no_answer_is_no_refusal(kms: KmsKey, plugin: KmsPlugin, code: str) -> None:
    """A plugin that doesn't come to decrypt says nothing of the key, whichever it uses by now: it may answer later."""
    plain = new_root()
    before = await kms.wrap(plain, CONTEXT)
    plugin.use("key-2")
    plugin.say(decrypt=code)
    with pytest.raises(KeyServiceUnavailable, match=code):
        await kms.unwrap(before, CONTEXT)
    plugin.say(decrypt="")
    assert await kms.unwrap(before, CONTEXT) == plain


@pytest.mark.parametrize(
    ("answer", "named"),
    [
        ({"healthz": "upstream\nis down"}, "upstreamis down"),
        ({"version": "v1beta1"}, "v1beta1"),
        ({"current": ""}, "names no key"),
        ({"current": "a\nb"}, "names no key"),
        ({"current": "k" * 1025}, "names no key"),
    ],
)
async def test_a_service_that_is_not_well_is_not_used(
    kms: KmsKey, plugin: KmsPlugin, answer: dict[str, str], named: str
) -> None:
    """Unhealthy, of another version of the API, or without a key: KeyServiceUnavailable, in one line."""
    plugin.say(**answer)
    with pytest.raises(KeyServiceUnavailable, match=named) as caught:
        await kms.current_key()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("parts", [[], [b""], [b"a", b"", b"ccc"]])
def test_frames_come_apart(parts: list[bytes]) -> None:
    """What is framed comes apart again, and a frame that is cut doesn't."""
    assert list(unframed(framed(*parts))) == parts
    if parts and parts[-1]:
        with pytest.raises(ValueError, match="truncated"):
            list(unframed(framed(*parts)[:-1]))
