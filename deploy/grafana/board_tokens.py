"""The dashboard *tokens*: what is asked for and issued, who is refused, and what it costs."""

from __future__ import annotations

from panels import BLUE, OURS, RED, YELLOW, Board, Panel, Row, Series
from queries import RATE, SECONDS, SHARE, by_instance, named, quantiles, rate, rates, total
from shared_panels import denials, tokens_by_mode

TOKENS = Board(
    "tokens",
    "tokens",
    "What is asked for and issued, who is refused, and what it costs.",
    (
        Row(
            "Tokens",
            (
                tokens_by_mode(
                    "Tokens issued", "A second, by mode. `outage`: from memory while the database was down."
                ),
                Panel(
                    "Requests that got none",
                    "By RFC 6749's code.",
                    (rates("artstore_token_requests_total", "outcome", f'outcome!="issued", {OURS}', where="> 0"),),
                    unit=RATE,
                ),
                Panel(
                    "How clients prove themselves",
                    "Requests a second by client authentication, in RFC 8414's names.",
                    (rates("artstore_token_requests_total", "client_authentication", where="> 0"),),
                    unit=RATE,
                    stacked=True,
                ),
            ),
        ),
        Row(
            "Denials and limits",
            (
                denials("Denials by reason", "Refused authentications of every method."),
                Panel(
                    "Refused by a limiter",
                    "`account`: over its rate limit. `back_off`: too many failed authentications before.",
                    (rates("artstore_limiter_decisions_total", "limiter", f'decision="refused", {OURS}'),),
                    unit=RATE,
                ),
                Panel(
                    "Admitted without Redis",
                    "By a process's own count, since Redis did not answer.",
                    (rates("artstore_limiter_decisions_total", "limiter", f'decision="degraded", {OURS}'),),
                    unit=RATE,
                    runbook="ArtstoreRedisDown",
                ),
            ),
        ),
        Row(
            "bcrypt",
            (
                Panel(
                    "Hashes that wait or are under way",
                    "All of an instance. Refused past ARTSTORE_BCRYPT_THREADS + ARTSTORE_BCRYPT_QUEUE at one worker, "
                    "33 by default.",
                    (by_instance("artstore_bcrypt_queue_depth"),),
                    thresholds=((16, YELLOW), (33, RED)),
                    runbook="ArtstoreBcryptQueue",
                ),
                Panel(
                    "How long one takes",
                    "In its thread, without its wait.",
                    quantiles("artstore_bcrypt_duration_seconds", OURS, 0.5, 0.99),
                    unit=SECONDS,
                    runbook="ArtstoreBcryptQueue",
                ),
                Panel(
                    "Hashes",
                    "Computed and refused, a second. Refused are those for which the queue was full.",
                    (
                        total("artstore_bcrypt_duration_seconds_count", "computed"),
                        total("artstore_bcrypt_rejections_total", "refused"),
                    ),
                    unit="ops",
                    runbook="ArtstoreBcryptRejections",
                    named_colours=(("computed", BLUE), ("refused", RED)),
                ),
            ),
        ),
        Row(
            "What is remembered",
            (
                Panel(
                    "Found in memory",
                    "What isn't in memory costs: a statement in `accounts`, a bcrypt in `secret_tags`.",
                    (
                        Series(
                            rate("artstore_cache_lookups_total", "cache", f'outcome="hit", {OURS}')
                            + " / "
                            + rate("artstore_cache_lookups_total", "cache"),
                            named("cache"),
                        ),
                    ),
                    unit=SHARE,
                    width=12,
                    most=1,
                ),
                Panel(
                    "Look-ups",
                    "A second, by cache.",
                    (rates("artstore_cache_lookups_total", "cache"),),
                    unit=RATE,
                    width=12,
                ),
            ),
        ),
    ),
)
