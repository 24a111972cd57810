"""docs/ledger_readers.svg: one table that replicas, verifiers and auditors read."""

from __future__ import annotations

from pathlib import Path

from drawing import Drawing

PAGE = Path(__file__).resolve().parent / "ledger_readers.svg"
ROWS = ("4711  account.suspended", "4712  secret.rotated", "4713  token.revoked", "4714  key.activated")


def page() -> str:
    made = Drawing(980, 330, "The ledger and its three readers")
    made.box(
        (24, 92, 250, 116),
        "A change",
        "the row of the account,",
        "secret, key or revocation",
        "and a row of the ledger:",
        "one transaction, or neither",
    )
    made.arrow((274, 150), (340, 150), kind="accent")
    made.box((340, 40, 270, 250), "The ledger", fill="spine")
    for number, row in enumerate(ROWS):
        top = 76 + number * 50
        made.box((356, top, 238, 34), row)
        if number:
            made.arrow((475, top), (475, top - 16))
    made.words(356, 280, "each holds the hash of the row before", "quiet")
    made.box(
        (690, 20, 266, 90), "Replicas", "tail it every 250 ms, or when woken;", "drop from memory what a row touches"
    )
    made.box(
        (690, 120, 266, 90),
        "Verifiers",
        "WatchTrust: keys, revocations, accounts",
        "not active, within a second; or a",
        "signed list to be cached",
    )
    made.box(
        (690, 220, 266, 90),
        "Auditors",
        "list, export and verify it offline;",
        "checkpoints are signed by a key",
        "of their own",
    )
    for y in (65, 165, 265):
        made.arrow((610, 165), (650, 165), (650, y), (690, y))
    return made.svg()
