"""One frozen object with every setting; made in `cli/`, which alone reads the environment, and passed down.

Each field is the environment variable `ARTSTORE_<NAME>`; fields with `secret: True` also take `ARTSTORE_<NAME>_FILE`.
The docstring below a field is its row in docs/settings.md.
"""

from __future__ import annotations

import ipaddress
import sys
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from artstore_grpc.addresses import Network
from artstore_grpc.model import Environment

SECRET = {"secret": True}

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "ES256", "EdDSA")
"""What tokens may be signed with (RFC 7518 §3.1, RFC 8037 §3.1)."""

WILDCARDS = ("0.0.0.0", "::", "*")  # noqa: S104 - compared with, never bound
"""Hosts that mean every interface, and so name nobody that a client could reach."""

MAX_CONNECTIONS = 4000
"""A request holds its connection for milliseconds, a client that keeps it alive for as long as it likes."""

MIN_BCRYPT_COST = 12
"""The least cost in `prod`; below it a stolen database is cheap to search."""


class InvalidSettings(Exception):
    """A setting is malformed, or contradicts another; the message is one sentence that says what to mend."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where a server listens: port 0 means any free one."""

    host: str
    port: int

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach it; a name other than localhost may resolve to anything."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host.lower() == "localhost"

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What an installation decides; every default is safe for one developer's machine."""

    data_dir: Path = Path("var")
    """Folder of the embedded database, its key-encryption key and the first administrator's credentials; made with
    mode 0700."""

    database_url: str = field(default="", metadata=SECRET)
    """`postgresql://user:password@host:5432/name` or `sqlite:///path`. Empty: the embedded SQLite in `DATA_DIR`."""

    redis_url: str = field(default="", metadata=SECRET)
    """`redis://…`, `rediss://…` or `unix:///path`, for limits that several replicas share, and where each tells clients
    its address. Empty: each replica counts for itself, and is registered nowhere."""

    grpc_address: Address = Address(host="127.0.0.1", port=50051)
    """Where gRPC listens, `host:port`; port 0 takes any free one, which is logged."""

    gateway_address: Address | None = Address(host="127.0.0.1", port=8080)
    """Where the REST gateway listens, `host:port`. `off`: no gateway in this process."""

    metrics_address: Address | None = Address(host="127.0.0.1", port=9464)
    """Where Prometheus reads metrics, `host:port`. `off`: nowhere."""

    health_address: Address | None = None
    """A further gRPC port that serves only `grpc.health.v1`, for probes, `host:port`. `off`: none."""

    tls_certificate_file: Path | None = None
    """PEM with the certificate for gRPC and the gateway, and its intermediates; read again when it changes. `off`:
    plain text."""

    tls_key_file: Path | None = None
    """PEM with that certificate's private key, not encrypted; read again with it. Both or neither."""

    advertise_address: Address | None = None
    """Where clients reach this process's gRPC, `host:port`, as it registers itself in Redis (docs/discovery.md); port 0
    is the bound one. `off`: the bound address, where that names one host; else it isn't registered."""

    grpc_mtls_address: Address | None = None
    """A further gRPC listener that demands a client certificate, `host:port`. `off`: none."""

    mtls_client_ca_file: Path | None = None
    """PEM with the CAs that those certificates must come from; read again when it changes."""

    workers: int = 1
    """Processes that share the listeners (1 to 256), or `auto` for one a core; Linux only where it is more than one.
    Each has the threads, pools and bounds below for itself; `METRICS_ADDRESS` tells of them all together."""

    max_connection_age: timedelta = timedelta(minutes=30)
    """Seconds, a tenth more or less, after which a client is asked to connect anew, so that new replicas and workers
    get their part (0 to 604,800). What is under way goes on: calls, and trust feeds until their tokens end. 0:
    never."""

    insecure_public: bool = False
    """`true`: gRPC and the gateway may listen beyond the loopback without TLS, since a mesh or an ingress encrypts in
    front of them; as `serve --insecure-public`."""

    issuer: str = ""
    """The issuer identifier, an http(s) URL without query or fragment (RFC 8414 §2). Empty: the gateway's URL, on the
    embedded database only, and only where that names a host."""

    audience: str = "artstore"
    """The audience of tokens that ask for none."""

    environment: Environment = Environment.DEV
    """`prod`, `staging` or `dev`; part of every `client_id`."""

    log_level: str = "info"
    """`debug`, `info`, `warning` or `error`."""

    log_sample: int = 1
    """Of calls that succeed in under a second one in so many has its log line, which says how many it stands for (1 to
    1,000,000). All others always have theirs. With more than 1 not every issued token is in the log."""

    log_settings_file: Path | None = None
    """JSON that changes these two while the service runs, `{"level": "debug", "sample": 10}`; read again when it
    changes. `off`: nothing does."""

    traces_endpoint: str = ""
    """Where an OpenTelemetry collector takes OTLP over gRPC, `http://host:4317` (plain text) or `https://host:4317`.
    Empty: nothing is traced."""

    traces_sample: float = 0.01
    """Of calls whose caller sent no trace context (`traceparent`) the share that is traced (0 to 1). Those whose caller
    did are traced where that says so, up to 100 a second."""

    trusted_proxies: tuple[Network, ...] = ()
    """Networks, comma-separated, whose `x-forwarded-for` and `forwarded` are believed. Name the gateway's when it runs
    alone. Empty: nobody's."""

    drain_delay: timedelta = timedelta(0)
    """Seconds between turning unready and closing the doors on SIGTERM, so that balancers notice (0 to 300)."""

    drain_grace: timedelta = timedelta(seconds=20)
    """Seconds that calls in flight have to finish after that (0 to 300)."""

    key_encryption_key: str = field(default="", repr=False, metadata=SECRET)
    """32 random bytes in base64; what is sensitive at rest is sealed under a root key, which is encrypted under this
    one. It or `KEY_ENCRYPTION_KMS` is required with a `DATABASE_URL`; the embedded default keeps its own in
    `DATA_DIR`."""

    key_encryption_kms: str = ""
    """Instead of that key, a key service: the UNIX socket of a plugin that speaks the Kubernetes KMS v2 API,
    `unix:///path`. It is asked at the start only."""

    token_lifetime: timedelta = timedelta(minutes=30)
    """Seconds that a token is valid (60 to 86,400)."""

    signing_algorithm: str = "RS256"
    """`RS256`, `RS384`, `RS512`, `PS256`, `ES256` or `EdDSA`; a running installation moves over to
    another one without a refused token."""

    key_rotation_interval: timedelta = timedelta(hours=24)
    """Seconds that a key signs before the next one does (0 to 31,536,000), at least twice `JWKS_MAX_AGE`. 0: keys
    change on request only, and when `SIGNING_ALGORITHM` does."""

    jwks_max_age: timedelta = timedelta(minutes=5)
    """Seconds that verifiers may keep the key set (1 to 86,400). A new key signs no sooner than this, and a tenth
    more, after it was published."""

    outage_window: timedelta = timedelta(minutes=5)
    """Seconds that accounts in memory keep getting tokens while the database is down (0 to 3,600); the tokens issued
    then live no longer than 5 minutes."""

    bcrypt_cost: int = MIN_BCRYPT_COST
    """log2 of bcrypt's rounds for secrets at rest (4 to 16; at least 12 in `prod`)."""

    bcrypt_threads: int = 1
    """Threads that hash (1 to 64). Each takes a core while it works."""

    bcrypt_queue: int = 32
    """Hashes that may wait (1 to 10,000); past it RESOURCE_EXHAUSTED."""

    source_failures: int = 60
    """Failed authentications a minute of one source (an address, an IPv6 /64), over all accounts, that cost nothing (10
    to 1,000,000); past it that source's further ones have to wait, up to 15 minutes. A secret that has proved itself
    before never waits."""

    max_in_flight: int = 1000
    """Calls in progress at once (1 to 100,000); past it RESOURCE_EXHAUSTED. Health checks are exempt."""

    max_connections: int = MAX_CONNECTIONS
    """HTTP connections open at once at the gateway (16 to 100,000); past it a new one is answered 429 and closed. The
    process may have so many files open, and 6,000 more, if the system lets it."""

    max_streams: int = 1000
    """Trust feeds followed at once (1 to 100,000), a fourth of them by one account; past it RESOURCE_EXHAUSTED."""

    database_pool_size: int = 10
    """Connections to PostgreSQL of one process (1 to 1,000)."""

    sinks_file: Path | None = None
    """JSON that says where the secrets are delivered that the service rotates by itself (docs/sinks.md). `off`:
    nowhere."""

    @property
    def embedded(self) -> bool:
        """Whether the database is the embedded default."""
        return not self.database_url

    @property
    def tls(self) -> bool:
        """Whether gRPC and the gateway have a certificate."""
        return self.tls_certificate_file is not None

    @property
    def store_url(self) -> str:
        return self.database_url or f"sqlite:///{self.data_dir / 'identity.db'}"

    @property
    def key_encryption_key_path(self) -> Path:
        return self.data_dir / "key-encryption.key"

    def __post_init__(self) -> None:
        for name, low, high in BOUNDS:
            value = getattr(self, name)
            number = value.total_seconds() if isinstance(value, timedelta) else value
            if not low <= number <= high:
                raise InvalidSettings(f"ARTSTORE_{name.upper()} must be {low:,} to {high:,}.")
        if self.signing_algorithm not in ALGORITHMS:
            raise InvalidSettings(f"ARTSTORE_SIGNING_ALGORITHM must be one of {', '.join(ALGORITHMS)}.")
        if self.environment is Environment.PROD and self.bcrypt_cost < MIN_BCRYPT_COST:
            raise InvalidSettings(f"ARTSTORE_BCRYPT_COST must be at least {MIN_BCRYPT_COST} where ENVIRONMENT is prod.")
        if timedelta(0) < self.key_rotation_interval < 2 * self.jwks_max_age:
            raise InvalidSettings("ARTSTORE_KEY_ROTATION_INTERVAL must be 0, or at least twice ARTSTORE_JWKS_MAX_AGE.")
        self._check_identity()
        self._check_key_encryption()
        self._check_tls()
        self._check_addresses()
        if self.workers > 1 and sys.platform != "linux":
            raise InvalidSettings("ARTSTORE_WORKERS must be 1 here: only Linux divides connections among processes.")

    def _check_addresses(self) -> None:
        if self.advertise_address is not None and self.advertise_address.host in WILDCARDS:
            raise InvalidSettings("ARTSTORE_ADVERTISE_ADDRESS must name the host that clients reach this process at.")
        taken: dict[Address, str] = {}
        for name in ("grpc", "grpc_mtls", "gateway", "metrics", "health"):
            address: Address | None = getattr(self, f"{name}_address")
            if address is None or not address.port:
                continue
            if address in taken:
                pair = f"ARTSTORE_{taken[address].upper()}_ADDRESS and ARTSTORE_{name.upper()}_ADDRESS"
                raise InvalidSettings(f"{pair} are both {address}; give each its own.")
            taken[address] = name

    def _check_tls(self) -> None:
        if (self.tls_certificate_file is None) != (self.tls_key_file is None):
            raise InvalidSettings("ARTSTORE_TLS_CERTIFICATE_FILE and ARTSTORE_TLS_KEY_FILE must be given together.")
        if (self.grpc_mtls_address is None) != (self.mtls_client_ca_file is None):
            raise InvalidSettings("ARTSTORE_GRPC_MTLS_ADDRESS and ARTSTORE_MTLS_CLIENT_CA_FILE must be given together.")
        if self.grpc_mtls_address is not None and not self.tls:
            raise InvalidSettings(
                "ARTSTORE_GRPC_MTLS_ADDRESS needs ARTSTORE_TLS_CERTIFICATE_FILE and ARTSTORE_TLS_KEY_FILE."
            )
        if self.tls and self.insecure_public:
            raise InvalidSettings("ARTSTORE_INSECURE_PUBLIC and ARTSTORE_TLS_CERTIFICATE_FILE contradict each other.")

    def _check_key_encryption(self) -> None:
        if self.key_encryption_key and self.key_encryption_kms:
            raise InvalidSettings(
                "ARTSTORE_KEY_ENCRYPTION_KEY and ARTSTORE_KEY_ENCRYPTION_KMS are both given; give one of them."
            )
        if not self.embedded and not self.key_encryption_key and not self.key_encryption_kms:
            raise InvalidSettings(
                "ARTSTORE_KEY_ENCRYPTION_KEY, ARTSTORE_KEY_ENCRYPTION_KEY_FILE or ARTSTORE_KEY_ENCRYPTION_KMS must be "
                "given once ARTSTORE_DATABASE_URL is (a key is 32 random bytes in base64: openssl rand -base64 32)."
            )

    def _check_identity(self) -> None:
        if self.issuer and not self.issuer.startswith(("https://", "http://")):
            raise InvalidSettings("ARTSTORE_ISSUER must be an http(s) URL.")
        if any(mark in self.issuer for mark in "?# ") or self.issuer.endswith("/"):
            raise InvalidSettings("ARTSTORE_ISSUER must have no query, no fragment and no closing slash (RFC 8414 §2).")
        if not self.embedded and not self.issuer:
            raise InvalidSettings("ARTSTORE_ISSUER must be given once ARTSTORE_DATABASE_URL is.")
        if not self.issuer and (self.gateway_address is None or self.gateway_address.host in WILDCARDS):
            raise InvalidSettings("ARTSTORE_ISSUER must be given where ARTSTORE_GATEWAY_ADDRESS names no host.")
        if self.audience == self.issuer or not self.audience:
            raise InvalidSettings("ARTSTORE_AUDIENCE must be given, and differ from ARTSTORE_ISSUER.")


BOUNDS: tuple[tuple[str, int, int], ...] = (
    ("workers", 1, 256),
    ("max_connection_age", 0, 604_800),
    ("log_sample", 1, 1_000_000),
    ("traces_sample", 0, 1),
    ("drain_delay", 0, 300),
    ("drain_grace", 0, 300),
    ("token_lifetime", 60, 86_400),
    ("key_rotation_interval", 0, 31_536_000),
    ("jwks_max_age", 1, 86_400),
    ("outage_window", 0, 3_600),
    ("bcrypt_cost", 4, 16),
    ("bcrypt_threads", 1, 64),
    ("bcrypt_queue", 1, 10_000),
    ("source_failures", 10, 1_000_000),
    ("max_in_flight", 1, 100_000),
    ("max_connections", 16, 100_000),
    ("max_streams", 1, 100_000),
    ("database_pool_size", 1, 1_000),
)
