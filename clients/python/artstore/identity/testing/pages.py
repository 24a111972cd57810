"""Pages of accounts (AIP-158): a token names the account after which a list goes on, for the same query only."""

from __future__ import annotations

import hashlib
from datetime import datetime

from artstore.identity.testing import filters
from artstore.identity.testing.accounts import Account, Accounts
from artstore.identity.testing.refusals import invalid
from artstore.identity.v1 import service_account_service_pb2 as pb

DEFAULT_SIZE = 50
MAX_SIZE = 1000


def listed(accounts: Accounts, request: pb.ListServiceAccountsRequest, now: datetime) -> tuple[list[Account], str]:
    """A page in the order of creation, and the token of the next."""
    if request.page_size < 0:
        raise invalid("page_size", "must not be negative")
    size = min(request.page_size, MAX_SIZE) or DEFAULT_SIZE
    known = list(accounts)
    start = place(known, request)
    matches = filters.parsed(request.filter)
    shown = [
        each
        for each in known[start:]
        if (request.show_deleted or not each.delete_time) and all(match(each, now) for match in matches)
    ]
    page = shown[:size]
    return page, f"{page[-1].id}.{mark(request)}" if len(shown) > size else ""


def mark(request: pb.ListServiceAccountsRequest) -> str:
    """What tells a query's tokens from another's."""
    return hashlib.sha256(f"{request.show_deleted}|{request.filter}".encode()).hexdigest()[:16]


def place(known: list[Account], request: pb.ListServiceAccountsRequest) -> int:
    if not request.page_token:
        return 0
    last, _, query = request.page_token.partition(".")
    found = [number for number, each in enumerate(known, 1) if each.id == last]
    if query != mark(request) or not found:
        raise invalid("page_token", "is not one of this query's", "INVALID_PAGE_TOKEN")
    return found[0]
