"""docs/architecture.svg: the parts of the service, a request's three hops, and where state lives."""

from __future__ import annotations

from pathlib import Path

from drawing import Drawing

PAGE = Path(__file__).resolve().parent / "architecture.svg"


def page() -> str:
    made = Drawing(980, 720, "The parts of ArtStore identity, and the hops of a request")
    callers(made)
    process(made)
    state(made)
    return made.svg()


def callers(made: Drawing) -> None:
    """Who calls, and by which door."""
    made.box((24, 20, 210, 62), "Services", "client library, or stubs")
    made.box((250, 20, 210, 62), "Operators", "artstore-grpc, a client too")
    made.box((476, 20, 210, 62), "Legacy clients", "RFC 6749 forms, JSON")
    made.box((702, 20, 254, 62), "Verifying services", "hold keys and the trust feed")
    made.arrow((129, 82), (129, 142))
    made.arrow((355, 82), (355, 112), (200, 112), (200, 142))
    made.arrow((581, 82), (581, 142))
    made.arrow((760, 142), (760, 82))
    made.words(137, 132, "gRPC, TLS", "quiet")
    made.words(589, 132, "HTTP/1.1, TLS", "quiet")
    made.words(768, 132, "WatchTrust, key set", "quiet")


def process(made: Drawing) -> None:
    """What one process consists of."""
    made.box((24, 142, 932, 406), fill="process")
    made.words(44, 536, "one process; replicas are alike", "quiet")
    made.box((44, 160, 330, 62), "The gRPC door", "rpc/server.py: listeners, health, reflection", fill="part")
    made.box((476, 160, 250, 62), "The HTTP door", "gateway/: the dialects of HTTP", fill="part")
    made.arrow((209, 222), (209, 250), kind="accent")
    made.arrow((581, 222), (581, 250), kind="accent")
    made.box(
        (44, 250, 682, 80),
        "The pipeline",
        "bytes → bound → decode → policy table → authenticate → limit → scope → deadline → method",
        "one log line, the metrics, one table of errors, whichever door it was",
        fill="part",
    )
    made.arrow((385, 330), (385, 358), kind="accent")
    made.box((44, 358, 682, 45), "Methods: rpc/…_service.py parse the message, call, format the answer", fill="part")
    made.arrow((385, 403), (385, 431), kind="accent")
    made.box(
        (44, 431, 682, 62),
        "Use cases",
        "tokens, accounts, secrets, keys, revocations, audit: the rules; I/O is the store's",
        fill="part",
    )
    for number, y in ((1, 349), (2, 422), (3, 517)):
        made.words(397, y, f"hop {number}", "hop")
    made.box(
        (752, 160, 186, 148),
        "Memory",
        "accounts, proved secrets,",
        "signing keys, revocations:",
        "read by every warm call,",
        "dropped by what the",
        "ledger's tail says",
        fill="part",
    )
    made.box(
        (752, 326, 186, 167),
        "Jobs",
        "the ledger's tail",
        "key rotation (one lease)",
        "secret rotation",
        "checkpoints",
        "hashing, in threads",
        "last uses, flushed",
        fill="part",
    )
    made.arrow((726, 290), (752, 290), both=True)
    made.arrow((845, 326), (845, 308))


def state(made: Drawing) -> None:
    """What outlives a process."""
    made.arrow((385, 493), (385, 560), (280, 560), (280, 590), kind="accent", both=True)
    made.box(
        (24, 590, 392, 110),
        "Database: PostgreSQL, or the embedded SQLite",
        "accounts, secrets (bcrypt, tags), keys (sealed), revocations",
        "the ledger: a row with every change, in its transaction",
        "leases, used assertions, answers kept for retries",
        fill="state",
    )
    made.box(
        (432, 590, 166, 110),
        "Redis, optional",
        "limits that replicas",
        "share; wake-ups;",
        "nothing that is missed",
        fill="state",
    )
    made.box(
        (614, 590, 166, 110),
        "KMS, or a key file",
        "unwraps the root key",
        "at the start, and only",
        "then",
        fill="state",
    )
    made.box(
        (796, 590, 160, 110),
        "Sinks, optional",
        "files, Kubernetes,",
        "webhooks: rotated",
        "secrets go there",
        fill="state",
    )
    made.arrow((515, 493), (515, 590), both=True)
    made.arrow((697, 590), (697, 493))
    made.arrow((860, 493), (860, 590))
