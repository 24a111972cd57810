"""`accounts`: what an operator or a script does with service accounts, against a real service."""

from __future__ import annotations

import json
from typing import Any
from uuid import uuid4

import pytest

from tests.cli.conftest import Cli

Account = dict[str, Any]


def as_account(made: Account) -> dict[str, str]:
    return {"ARTSTORE_CLIENT_ID": made["client_id"], "ARTSTORE_CLIENT_SECRET": made["client_secret"]}


def test_create_gets_a_token(cli: Cli, made: Account) -> None:
    """What `create --json` prints is enough for the account's first token."""
    assert {"id", "client_id", "client_secret", "name", "role", "state", "rate_limit"} <= set(made)
    assert (made["role"], made["state"], made["rate_limit"]) == ("user", "active", 1000)
    token = cli("token", **as_account(made)).stdout
    assert token.count(".") == 2
    assert len(token.split()) == 1


def test_create_with_every_option(cli: Cli) -> None:
    """Each option reaches its field."""
    name = f"every-{uuid4().hex[:8]}"
    arguments = ["--name", name, "--role", "user", "--rate-limit", "7", "--description", "d"]
    arguments += ["--scope", "storage.read", "--audience", "artstore", "--audience", "two", "--serves", "three"]
    said = cli("accounts", "create", *arguments, "--introspection-only", "--request-id", str(uuid4()), "--json").stdout
    account = json.loads(said)
    expected = {
        "name": name,
        "description": "d",
        "rate_limit": 7,
        "scopes": ["storage.read"],
        "audiences": ["artstore", "two"],
        "served_audiences": ["three"],
        "introspection_only": True,
    }
    assert {field: account[field] for field in expected} == expected


def test_create_again_with_the_same_request_id(cli: Cli) -> None:
    """A script that lost the answer runs the same line again and gets the same account and secret."""
    arguments = ["accounts", "create", "--name", f"again-{uuid4().hex[:8]}", "--role", "user"]
    arguments += ["--request-id", str(uuid4()), "--json"]
    first, second = (json.loads(cli(*arguments).stdout) for _ in range(2))
    assert (first["client_id"], first["client_secret"]) == (second["client_id"], second["client_secret"])


def test_create_for_people(cli: Cli) -> None:
    """Without --json a table, and the secret on a line of its own, whole."""
    said = cli("accounts", "create", "--name", f"table-{uuid4().hex[:8]}", "--role", "readonly").stdout
    client_id = said.split("client_id:")[1].split()[0]
    secret = said.split("client_secret:")[1].split()[0]
    assert cli("token", ARTSTORE_CLIENT_ID=client_id, ARTSTORE_CLIENT_SECRET=secret).stdout


def test_name_taken_is_7(cli: Cli, made: Account) -> None:
    """A second account of the same name is a conflict, as JSON where that was asked for."""
    result = cli("accounts", "create", "--name", made["name"], "--role", "user", "--json", code=7)
    assert json.loads(result.stderr)["error"]["exit_code"] == 7
    assert result.stdout == ""


def test_refused_argument_is_10(cli: Cli) -> None:
    """What the service refuses is told with its field."""
    result = cli("accounts", "create", "--name", "x", "--role", "user", "--json", code=10)
    assert json.loads(result.stderr)["error"]["violations"][0]["field"]


@pytest.mark.parametrize("key", ["id", "client_id"])
def test_get_by_either_name(cli: Cli, made: Account, key: str) -> None:
    """An account is named by its id or its client_id; no answer repeats the secret."""
    result = cli("accounts", "get", made[key], "--json")
    assert json.loads(result.stdout)["id"] == made["id"]
    assert made["client_secret"] not in result.output
    assert made["client_id"] in cli("accounts", "get", made[key]).stdout


def test_unknown_account_is_6(cli: Cli) -> None:
    """An account that isn't there is not found."""
    cli("accounts", "get", "sa_dev_nobody_00000000", code=6)


def test_list_streams_every_page(cli: Cli) -> None:
    """All pages are listed, in the order of creation; --limit ends early; the answer is one JSON array."""
    mark = uuid4().hex[:8]
    names = [f"list-{mark}-{number}" for number in range(5)]
    for name in names:
        cli("accounts", "create", "--name", name, "--role", "readonly")
    query = ["accounts", "list", "--filter", f'name : "{mark}"', "--page-size", "2"]
    assert [account["name"] for account in json.loads(cli(*query, "--json").stdout)] == names
    assert [account["name"] for account in json.loads(cli(*query, "--json", "--limit", "3").stdout)] == names[:3]
    assert all(name in cli(*query).stdout for name in names)
    assert json.loads(cli("accounts", "list", "--filter", 'name = "nobody at all"', "--json").stdout) == []


def test_bad_filter_is_10(cli: Cli) -> None:
    """A filter that doesn't parse is the service's to refuse."""
    cli("accounts", "list", "--filter", "name ~ x", code=10)


def test_update_changes_only_what_is_named(cli: Cli, made: Account) -> None:
    """Options that are not given leave their fields alone; '' empties a list."""
    account = made["id"]
    changed = json.loads(cli("accounts", "update", account, "--description", "new", "--json").stdout)
    assert (changed["description"], changed["rate_limit"], changed["name"]) == ("new", 1000, made["name"])
    narrowed = json.loads(cli("accounts", "update", account, "--scope", "storage.read", "--json").stdout)
    assert narrowed["scopes"] == ["storage.read"]
    assert narrowed["description"] == "new"
    widened = json.loads(cli("accounts", "update", account, "--scope", "", "--description", "", "--json").stdout)
    assert widened["scopes"] == ["storage.read", "storage.write"]
    assert widened["description"] == ""
    only = json.loads(cli("accounts", "update", account, "--introspection-only", "--json").stdout)
    assert only["introspection_only"] is True
    free = json.loads(cli("accounts", "update", account, "--no-introspection-only", "--json").stdout)
    assert free["introspection_only"] is False


def test_update_of_nothing_is_2(cli: Cli, made: Account) -> None:
    """An update without a field is a mistake on the command line."""
    cli("accounts", "update", made["id"], code=2)


def test_stale_etag_is_7(cli: Cli, made: Account) -> None:
    """With --etag a change that another operator made first is not overwritten."""
    cli("accounts", "update", made["id"], "--description", "a", "--etag", made["etag"])
    cli("accounts", "update", made["id"], "--description", "b", "--etag", made["etag"], code=7)


def test_suspend_and_activate(cli: Cli, made: Account) -> None:
    """A suspended account is refused, an activated one is not; in the wrong order it is a conflict."""
    assert json.loads(cli("accounts", "suspend", made["client_id"], "--json").stdout)["state"] == "suspended"
    result = cli("token", "--json", code=4, **as_account(made))
    error = json.loads(result.stderr)["error"]
    assert error["reason"] == "INVALID_CLIENT"
    assert error["denial_id"]
    assert json.loads(cli("accounts", "activate", made["client_id"], "--json").stdout)["state"] == "active"
    cli("accounts", "activate", made["client_id"], code=7)
    cli("token", **as_account(made))


def test_delete_and_undelete(cli: Cli, made: Account) -> None:
    """A deleted account is refused and listed on request only, until it is restored."""
    assert json.loads(cli("accounts", "delete", made["id"], "--json").stdout)["state"] == "deleted"
    cli("token", code=4, **as_account(made))
    query = ["accounts", "list", "--filter", f'name = "{made["name"]}"', "--json"]
    assert json.loads(cli(*query).stdout) == []
    assert len(json.loads(cli(*query, "--show-deleted").stdout)) == 1
    assert json.loads(cli("accounts", "undelete", made["id"], "--json").stdout)["state"] == "active"
    cli("token", **as_account(made))


def test_rotate_with_overlap(cli: Cli, made: Account) -> None:
    """Both secrets work during the overlap; without one the old dies at once."""
    rotated = json.loads(cli("accounts", "rotate-secret", made["id"], "--overlap", "1h", "--json").stdout)
    assert rotated["client_secret"] != made["client_secret"]
    assert len(rotated["secrets"]) == 2
    assert rotated["previous_secrets"]
    cli("token", **as_account(made))
    cli("token", **as_account(rotated))
    again = json.loads(cli("accounts", "rotate-secret", rotated["id"], "--overlap", "0", "--json", code=7).stderr)
    assert again["error"]["code"] == "FAILED_PRECONDITION"


def test_rotate_at_once(cli: Cli, made: Account) -> None:
    """With an overlap of 0 the old secret dies now."""
    rotated = json.loads(cli("accounts", "rotate-secret", made["id"], "--overlap", "0", "--json").stdout)
    cli("token", code=4, **as_account(made))
    cli("token", **as_account(rotated))


def test_an_account_rotates_its_own_secret(cli: Cli, made: Account) -> None:
    """An account without any right on accounts rotates its own secret with that secret; no other's."""
    rotated = json.loads(cli("accounts", "rotate-secret", made["client_id"], "--json", **as_account(made)).stdout)
    cli("token", **as_account(rotated))
    cli("accounts", "rotate-secret", "sa_dev_nobody_00000000", code=5, **as_account(made))


def test_revoke_secret(cli: Cli, made: Account) -> None:
    """A revoked secret dies now, the other one lives."""
    rotated = json.loads(cli("accounts", "rotate-secret", made["id"], "--json").stdout)
    new, old = rotated["secrets"]
    left = json.loads(cli("accounts", "revoke-secret", made["id"], old["id"], "--json").stdout)
    assert [secret["id"] for secret in left["secrets"]] == [new["id"]]
    cli("token", code=4, **as_account(made))
    cli("token", **as_account(rotated))


def test_an_account_without_rights_is_5(cli: Cli, made: Account) -> None:
    """A service that isn't an administrator may not look at accounts."""
    cli("accounts", "list", code=5, **as_account(made))
    cli("accounts", "create", "--name", "not allowed", "--role", "user", code=5, **as_account(made))


def test_over_the_limit_is_9(cli: Cli) -> None:
    """Past its rate an account is told when to try again."""
    said = cli("accounts", "create", "--name", "slow service", "--role", "user", "--rate-limit", "1", "--json").stdout
    slow = as_account(json.loads(said))
    cli("token", **slow)
    error = json.loads(cli("token", "--json", code=9, **slow).stderr)["error"]
    assert error["retry_after_seconds"] > 0


def test_hostile_text_is_shown_harmless(cli: Cli) -> None:
    """A description can neither style nor steer the terminal of who reads it."""
    said = cli(
        "accounts", "create", "--name", "[red]loud[/red]", "--role", "user", "--description", "a\u202eb :smile: [b]c"
    ).stdout
    assert "[red]loud[/red]" in said
    assert "a\N{REPLACEMENT CHARACTER}b :smile: [b]c" in said
