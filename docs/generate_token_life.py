"""docs/token_life.svg: how a token is made, verified, and refused once it is revoked."""

from __future__ import annotations

from pathlib import Path

from drawing import Drawing

PAGE = Path(__file__).resolve().parent / "token_life.svg"
LIVES = {"ingester": 110, "identity": 430, "database": 640, "storage": 860}


def page() -> str:
    made = Drawing(980, 640, "How a token is made and verified")
    heads = {
        "ingester": "An ingester",
        "identity": "ArtStore identity",
        "database": "Database",
        "storage": "A storage element",
    }
    for name, x in LIVES.items():
        made.rule(x, 62, 620)
        made.box((x - 84, 22, 168, 40), heads[name], fill="state" if name == "database" else "process")
    y = 100
    call(made, y, "storage", "identity", "WatchTrust: snapshot, then changes, a heartbeat a second")
    call(made, y + 50, "ingester", "identity", "IssueToken(client_id, secret, scope)")
    note(
        made,
        y + 64,
        "identity",
        (
            "the secret's tag: one HMAC",
            "the account's limit; scopes and audiences",
            "claims (RFC 9068), one signature",
        ),
    )
    call(made, y + 172, "identity", "ingester", "token, 30 minutes; nothing was written")
    call(made, y + 210, "ingester", "storage", "a call, with authorization: Bearer")
    note(
        made,
        y + 224,
        "storage",
        ("By itself", "typ, kid, the key's algorithm,", "signature, iss, aud, exp,", "not revoked: nobody is asked"),
        right=True,
    )
    call(made, y + 334, "ingester", "identity", "RevokeToken(token)")
    call(made, y + 362, "identity", "database", "jti and ledger row")
    call(made, y + 394, "identity", "ingester", "revoked, durably")
    call(made, y + 426, "identity", "storage", "the feed: this jti, within a second")
    call(made, y + 476, "ingester", "storage", "the same token: refused")
    return made.svg()


def call(made: Drawing, y: int, sender: str, receiver: str, words: str) -> None:
    start, end = LIVES[sender], LIVES[receiver]
    made.arrow((start, y), (end, y))
    made.words(min(start, end) + 12, y - 7, words, "quiet")


def note(made: Drawing, y: int, name: str, lines: tuple[str, ...], *, right: bool = False) -> None:
    x = LIVES[name] - (148 if right else 130)
    made.box((x, y, 260, 24 + 17 * len(lines)), *lines)
