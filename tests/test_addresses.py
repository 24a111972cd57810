"""Whose address a call is counted under: nobody can choose another's."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artstore_grpc.addresses import source_address

PROXIES = (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))

CASES = [
    ("no header", "10.0.0.1", [], "10.0.0.1"),
    ("one hop", "10.0.0.1", ["203.0.113.7"], "203.0.113.7"),
    ("peer not trusted", "203.0.113.9", ["198.51.100.1"], "203.0.113.9"),
    ("spoofed left part", "10.0.0.1", ["198.51.100.1, 203.0.113.7"], "203.0.113.7"),
    ("through two proxies", "10.0.0.1", ["203.0.113.7, 10.0.0.2"], "203.0.113.7"),
    ("several header lines", "10.0.0.1", ["198.51.100.1", "203.0.113.7", "10.9.9.9"], "203.0.113.7"),
    ("all trusted", "10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
    ("with a port", "10.0.0.1", ["203.0.113.7:5123"], "203.0.113.7"),
    ("IPv6 with brackets and port", "10.0.0.1", ["[2001:db8::1]:5123"], "2001:db8::1"),
    ("IPv6 bare", "fd00::1", ["2001:db8::1"], "2001:db8::1"),
    ("IPv4 mapped peer", "::ffff:10.0.0.1", ["203.0.113.7"], "203.0.113.7"),
    ("IPv4 mapped stranger", "::ffff:203.0.113.9", ["198.51.100.1"], "203.0.113.9"),
    ("zone", "fe80::1%eth0", [], "fe80::1"),
    ("not an address", "10.0.0.1", ["203.0.113.7, unknown"], "10.0.0.1"),
    ("hidden behind a trusted hop", "10.0.0.1", ["_secret, 10.0.0.2"], "10.0.0.2"),
    ("RFC 7239 §4", "10.0.0.1", ['for="[2001:db8:cafe::17]:4711";proto=https'], "2001:db8:cafe::17"),
    ("RFC 7239 §7.1", "10.0.0.1", ["for=192.0.2.43, for=198.51.100.17;by=10.0.0.1"], "198.51.100.17"),
    ("RFC 7239 case", "10.0.0.1", ["By=10.0.0.1;For=192.0.2.43"], "192.0.2.43"),
    ("RFC 7239 without for", "10.0.0.1", ["proto=https"], "10.0.0.1"),
    ("both agree", "10.0.0.1", ["192.0.2.43", "for=192.0.2.43"], "192.0.2.43"),
    ("both disagree", "10.0.0.1", ["192.0.2.43", "for=192.0.2.44"], "10.0.0.1"),
    ("empty entries", "10.0.0.1", [", ,203.0.113.7,"], "203.0.113.7"),
    ("UNIX socket", "unix", ["203.0.113.7"], "unix"),
    ("nothing known", "", ["203.0.113.7"], ""),
]


@pytest.mark.parametrize(("peer", "values", "source"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_the_source_is_the_rightmost_untrusted_address(peer: str, values: list[str], source: str) -> None:
    """A table of chains and the address that counts."""
    assert source_address(peer, values, PROXIES) == source


def test_without_trusted_proxies_headers_are_never_believed() -> None:
    """The default trusts nobody."""
    assert source_address("10.0.0.1", ["203.0.113.7"], ()) == "10.0.0.1"


@given(st.lists(st.text(max_size=60), max_size=5), st.integers(0, 40))
def test_what_a_stranger_writes_never_outweighs_the_proxys_own_entry(values: list[str], padding: int) -> None:
    """Whatever stands left of it, the trusted proxy's own entry is the one that counts."""
    typed = [value.replace("=", "") for value in [*values, *["1.2.3.4"] * padding]]
    assert source_address("10.0.0.1", [*typed, "203.0.113.7"], PROXIES) == "203.0.113.7"


@given(st.lists(st.text(max_size=80), max_size=5))
def test_any_text_is_survived(values: list[str]) -> None:
    """No header makes the function raise."""
    assert source_address("10.0.0.1", values, PROXIES)
