"""`keys`: what an operator does with signing keys, against a real service."""

from __future__ import annotations

import json

import pytest

from tests.cli.conftest import Cli


def test_list(cli: Cli) -> None:
    """One key is active; --json has the REST API's names, the table has a row a key."""
    made = json.loads(cli("keys", "prepare", "--json").stdout)
    listed = json.loads(cli("keys", "list", "--json").stdout)
    assert [key["state"] for key in listed].count("active") == 1
    assert made["kid"] in [key["kid"] for key in listed]
    assert set(made["public_key"]) == {"kty", "use", "alg", "kid", "n", "e"}
    table = cli("keys", "list").stdout
    assert all(key["kid"] in table for key in listed)


def test_the_time_of_a_key(cli: Cli) -> None:
    """`activate` before the time is refused with the time; `rotate` says when it will be."""
    kid = json.loads(cli("keys", "prepare", "--json").stdout)["kid"]
    said = cli("keys", "activate", kid, "--json", code=7)
    assert json.loads(said.stderr)["error"]["reason"] == "KEY_NOT_PUBLISHED_LONG_ENOUGH"
    planned = json.loads(cli("keys", "rotate", "--json").stdout)
    assert planned["activate_time"] == planned["earliest_activate_time"]
    assert planned["kid"] in cli("keys", "rotate").stdout


def test_retire_gives_up_a_prepared_key(cli: Cli) -> None:
    """It is gone from the list; a key that isn't there is an error."""
    kid = json.loads(cli("keys", "prepare", "--json").stdout)["kid"]
    assert json.loads(cli("keys", "retire", kid, "--json").stdout)["state"] == "retired"
    assert kid not in [key["kid"] for key in json.loads(cli("keys", "list", "--json").stdout)]
    assert json.loads(cli("keys", "retire", kid, "--json", code=6).stderr)["error"]["reason"] == "KEY_NOT_FOUND"


@pytest.mark.parametrize("before", [[], ["--"]])
def test_a_kid_may_begin_with_a_dash(cli: Cli, before: list[str]) -> None:
    """A thumbprint does once in 64: it is looked for, not taken for an option, whether or not `--` stands before it."""
    kid = "-z" + "A" * 41
    for verb in (["retire"], ["activate"], ["revoke", "--yes"]):
        said = cli("keys", *verb, "--json", *before, kid, code=6)
        assert json.loads(said.stderr)["error"]["reason"] == "KEY_NOT_FOUND"
    assert "No such option" in cli("keys", "retire", "-z", code=2).output


def test_revoke_asks_first(cli: Cli) -> None:
    """Without --yes, and without an answer, nothing is revoked; with it the key is, and the next one signs."""
    kid = next(key["kid"] for key in json.loads(cli("keys", "list", "--json").stdout) if key["state"] == "active")
    cli("keys", "revoke", kid, code=1)
    assert [key["state"] for key in json.loads(cli("keys", "list", "--json").stdout)].count("revoked") == 0
    answer = json.loads(cli("keys", "revoke", kid, "--yes", "--json").stdout)
    assert (answer["signing_key"]["kid"], answer["signing_key"]["state"]) == (kid, "revoked")
    assert answer["active_key"]["state"] == "active"
    assert cli("token").stdout.count(".") == 2
