"""What the token endpoint refuses, case by case: the table that every door of it is held to.

An id begins with the section that asks for the refusal. `{name}` in a body or a header is filled from the running
service: `{id}` and `{secret}` are good credentials; `{other_id}`, `{suspended_id}`, `{deleted_id}`, `{expired_id}`,
`{rotated_id}`, `{introspector_id}` and `{spent_id}` have a `_secret` each, which was good once.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from urllib.parse import quote_plus

FORM = "application/x-www-form-urlencoded"
JSON = "application/json"
TOKEN = "/oauth2/token"
LEGACY = "/api/v1/auth/token"

GRANT = "grant_type=client_credentials"
POSTED = "client_id={id}&client_secret={secret}"
GOOD = f"{GRANT}&{POSTED}"
ASSERTION_TYPE = "urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer"
JWT = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJ4In0."


@dataclass(frozen=True)
class Case:
    """A request and its refusal. `basic` is base64-encoded after its placeholders are filled; `headers` are sent as
    they are."""

    id: str
    status: int
    error: str
    body: str | bytes = GOOD
    basic: str | bytes | None = None
    headers: list[tuple[str, str]] = field(default_factory=list)
    kind: str | None = FORM
    method: str = "POST"
    path: str = TOKEN
    reason: str = ""

    def content(self, names: dict[str, str]) -> bytes:
        return self.body if isinstance(self.body, bytes) else filled(self.body, names).encode()

    def sent_headers(self, names: dict[str, str]) -> list[tuple[bytes, bytes]]:
        found = [(name, filled(value, names)) for name, value in self.headers]
        if self.kind is not None:
            found.append(("Content-Type", self.kind))
        if self.basic is not None:
            raw = self.basic if isinstance(self.basic, bytes) else filled(self.basic, names).encode()
            found.append(("Authorization", "Basic " + base64.b64encode(raw).decode()))
        return [(name.encode(), value.encode("latin-1")) for name, value in found]


def filled(template: str, names: dict[str, str]) -> str:
    for name, value in names.items():
        template = template.replace("{" + name + "}", value)
    return template


def bad(id: str, body: str | bytes = GOOD, error: str = "invalid_request", **more: object) -> Case:
    """A 400."""
    return Case(id, 400, error, body, **more)  # type: ignore[arg-type]


def unknown(id: str, body: str | bytes = GRANT, **more: object) -> Case:
    """A 401."""
    return Case(id, 401, "invalid_client", body, **more)  # type: ignore[arg-type]


def posted(id: str, secret: str) -> str:
    return f"{GRANT}&client_id={quote_plus(id, safe='{}')}&client_secret={quote_plus(secret, safe='{}')}"


TWO_AUTHENTICATIONS = [
    bad("RFC6749-2.3 Basic and client_secret of the same account", GOOD, basic="{id}:{secret}"),
    bad(
        "RFC6749-2.3 Basic and another account's credentials",
        posted("{other_id}", "{other_secret}"),
        basic="{id}:{secret}",
    ),
    bad("RFC6749-2.3 Basic and only another client_id", f"{GRANT}&client_id={{other_id}}", basic="{id}:{secret}"),
    bad("RFC6749-2.3 Basic and only a client_secret", f"{GRANT}&client_secret={{secret}}", basic="{id}:{secret}"),
    bad("RFC6749-2.3 wrong Basic and right client_secret", GOOD, basic="{id}:wrong"),
    bad(
        "RFC6749-2.3 Basic and a client assertion",
        f"{GRANT}&client_assertion_type={ASSERTION_TYPE}&client_assertion={JWT}",
        basic="{id}:{secret}",
    ),
    bad(
        "RFC6749-2.3 Basic and a client_assertion_type",
        f"{GRANT}&client_assertion_type={ASSERTION_TYPE}",
        basic="{id}:{secret}",
    ),
    bad(
        "RFC6749-2.3 client_secret and a client assertion",
        f"{GOOD}&client_assertion_type={ASSERTION_TYPE}&client_assertion={JWT}",
    ),
    bad("RFC6749-2.3 two Basic headers", GRANT, basic="{id}:{secret}", headers=[("Authorization", "Basic eDp5")]),
    bad("RFC6749-2.3 Basic and Bearer headers", GRANT, basic="{id}:{secret}", headers=[("Authorization", "Bearer x")]),
    unknown("RFC6749-2.3 Bearer header and client_secret", GOOD, headers=[("Authorization", "Bearer x")]),
    bad("RFC7521-4.2 client_assertion without its type", f"{GRANT}&client_assertion={JWT}"),
    bad("RFC7521-4.2 client_assertion_type without an assertion", f"{GRANT}&client_assertion_type={ASSERTION_TYPE}"),
    unknown(
        "RFC7521-4.2.1 an assertion by a key that is not registered",
        f"{GRANT}&client_id={{id}}&client_assertion_type={ASSERTION_TYPE}&client_assertion={JWT}",
    ),
    bad(
        "RFC7521-4.2.1 an assertion of an unknown type",
        f"{GRANT}&client_id={{id}}&client_assertion_type=x&client_assertion=y",
    ),
]

CREDENTIALS = [
    unknown("RFC6749-2.3.1 no credentials at all"),
    unknown("RFC6749-2.3.1 only a client_id", f"{GRANT}&client_id={{id}}"),
    unknown("RFC6749-2.3.1 only a client_secret", f"{GRANT}&client_secret={{secret}}"),
    unknown("RFC6749-2.3.1 empty client_secret", f"{GRANT}&client_id={{id}}&client_secret="),
    unknown("RFC6749-2.3.1 wrong secret, posted", posted("{id}", "wrong")),
    unknown("RFC6749-2.3.1 wrong secret, Basic", basic="{id}:wrong"),
    unknown("RFC6749-2.3.1 unknown client_id, posted", posted("sa_dev_nobody_00000000", "{secret}")),
    unknown("RFC6749-2.3.1 unknown client_id, Basic", basic="sa_dev_nobody_00000000:{secret}"),
    unknown("RFC6749-2.3.1 another account's secret", posted("{id}", "{other_secret}")),
    unknown("RFC6749-2.3.1 client_id in the wrong case", posted("{ID}", "{secret}")),
    unknown("RFC6749-2.3.1 account id in place of client_id", posted("{uuid}", "{secret}")),
    unknown("RFC6749-2.3.1 suspended account", posted("{suspended_id}", "{suspended_secret}")),
    unknown("RFC6749-2.3.1 suspended account, Basic", basic="{suspended_id}:{suspended_secret}"),
    unknown("RFC6749-2.3.1 deleted account", posted("{deleted_id}", "{deleted_secret}")),
    unknown("RFC6749-2.3.1 expired secret", posted("{expired_id}", "{expired_secret}")),
    unknown("RFC6749-2.3.1 rotated secret", posted("{rotated_id}", "{rotated_secret}")),
    unknown("RFC6749-2.3.1 secret cut short", posted("{id}", "{secret_cut}")),
    unknown("RFC6749-2.3.1 secret with one character changed", posted("{id}", "{secret_changed}")),
    unknown("RFC6749-2.3.1 secret in upper case", posted("{id}", "{SECRET}")),
    unknown("RFC6749-2.3.1 secret with a space behind it", posted("{id}", "{secret} ")),
    unknown("RFC6749-2.3.1 secret with a newline behind it", posted("{id}", "{secret}\n")),
    unknown("RFC6749-2.3.1 secret of 73 bytes", posted("{id}", "x" * 73)),
    unknown("RFC6749-2.3.1 secret of 60,000 bytes", posted("{id}", "x" * 60_000)),
    unknown("RFC6749-2.3.1 client_id of 60,000 bytes", posted("x" * 60_000, "{secret}")),
    unknown("RFC6749-2.3.1 non-ASCII secret", posted("{id}", "pässwörd")),
    unknown("RFC6749-2.3.1 SQL in the client_id", posted("' OR '1'='1", "{secret}")),
    bad("RFC6749-2.3.1 credentials in the URL", GRANT, path=f"{TOKEN}?{POSTED}", reason="PARAMETERS_IN_URL"),
    bad("RFC6749-2.3.1 credentials in the URL and in the body", path=f"{TOKEN}?{POSTED}", reason="PARAMETERS_IN_URL"),
    bad("RFC6749-2.3.1 only the client_id in the URL", GRANT, path=f"{TOKEN}?client_id={{id}}", basic="{id}:{secret}"),
]

BASIC = [
    bad("RFC7617-2 not base64", GRANT, headers=[("Authorization", "Basic !!!")]),
    bad("RFC7617-2 base64 with spaces inside", GRANT, headers=[("Authorization", "Basic eDp5 eDp5")]),
    bad("RFC7617-2 nothing after the scheme", GRANT, headers=[("Authorization", "Basic")]),
    bad("RFC7617-2 no colon", GRANT, basic="{id}"),
    bad("RFC7617-2 not UTF-8", GRANT, basic=b"\xff\xfe:\xff"),
    bad("RFC7617-2 NUL in the user-id", GRANT, basic=b"a\0b:c"),
    bad("RFC7617-2 escaped NUL in the password", GRANT, basic="{id}:%00"),
    unknown("RFC7617-2 empty user-id and password", basic=":"),
    unknown("RFC7617-2 empty password", basic="{id}:"),
    unknown("RFC7617-2 empty user-id", basic=":{secret}"),
    unknown("RFC7617-2 colon in the password", basic="{id}:{secret}:x"),
    unknown("RFC7617-2 another scheme: Bearer", headers=[("Authorization", "Bearer {secret}")]),
    unknown("RFC7617-2 another scheme: Digest", headers=[("Authorization", 'Digest username="{id}"')]),
    unknown("RFC7617-2 another scheme: Negotiate", headers=[("Authorization", "Negotiate YII=")]),
    unknown("RFC7617-2 no scheme", headers=[("Authorization", "eDp5")]),
    bad("RFC6749-AppB broken escape in Basic", GRANT, basic="{id}:%zz"),
    bad("RFC6749-AppB escape cut short in Basic", GRANT, basic="{id}:%4"),
    bad("RFC6749-AppB lone percent in Basic", GRANT, basic="{id}:100%"),
    bad("RFC6749-AppB escaped bytes that are not UTF-8 in Basic", GRANT, basic="{id}:%ff"),
    unknown("RFC6749-AppB plus is a space in Basic", basic="{id}:a+b"),
    bad("RFC9110-11.6.2 Authorization of 9,000 bytes", GRANT, headers=[("Authorization", "Basic " + "A" * 9_000)]),
    bad("RFC9110-11.6.2 Authorization outside ASCII", GRANT, headers=[("Authorization", "Basic \xe4")]),
    bad("RFC9110-11.6.2 tab in Authorization", GRANT, headers=[("Authorization", "Basic\teDp5")]),
]

METHODS = [
    Case(f"RFC6749-3.2 {method}", 405, "invalid_request", GOOD, method=method, reason="METHOD_NOT_ALLOWED")
    for method in ("GET", "PUT", "PATCH", "DELETE", "TRACE")
]

REPEATED = [
    bad(f"RFC6749-3.2 {name} twice", f"{GOOD}&scope=&{more}", reason="REPEATED_PARAMETER")
    for name, more in (
        ("grant_type", GRANT),
        ("client_id", "client_id={id}"),
        ("client_secret", "client_secret={secret}"),
        ("scope", "scope=storage.read"),
        ("client_assertion", "client_assertion=a&client_assertion=a"),
        ("an unknown parameter", "x=1&x=1"),
        ("an unknown parameter, empty,", "x&x="),
        ("grant_type with its name escaped", "%67rant_type=client_credentials"),
        ("grant_type, empty,", "grant_type="),
        ("a differing grant_type", "grant_type=password"),
        ("a differing client_id", "client_id={other_id}"),
    )
]

MEDIA = [
    bad(f"RFC6749-3.2 Content-Type: {name}", kind=kind, reason="UNSUPPORTED_MEDIA_TYPE")
    for name, kind in (
        ("none", None),
        ("empty", ""),
        ("text", "text/plain"),
        ("multipart", "multipart/form-data; boundary=x"),
        ("XML", "application/xml"),
        ("JSON at the RFC's endpoint", JSON),
        ("nearly a form", "application/x-www-form-urlencoded2"),
        ("form in Latin-1", f"{FORM}; charset=iso-8859-1"),
        ("form in UTF-16", f'{FORM}; charset="utf-16"'),
        ("two in one", f"{FORM}, {JSON}"),
    )
]
MEDIA += [
    bad("RFC6749-3.2 Content-Type twice", headers=[("Content-Type", JSON)], reason="UNSUPPORTED_MEDIA_TYPE"),
    bad("RFC6749-3.2 compressed body", headers=[("Content-Encoding", "gzip")], reason="UNSUPPORTED_MEDIA_TYPE"),
    bad("RFC6749-3.2 text at the legacy endpoint", kind="text/plain", path=LEGACY, reason="UNSUPPORTED_MEDIA_TYPE"),
]

URLS = [
    bad(f"RFC6749-3.2 {name} in the URL", path=f"{TOKEN}?{query}", reason="PARAMETERS_IN_URL")
    for name, query in (
        ("grant_type", GRANT),
        ("scope", "scope=storage.read"),
        ("an unknown parameter", "utm_source=x"),
        ("a bare word", "x"),
        ("a broken escape", "%zz"),
        ("an equals sign", "="),
    )
]

MALFORMED = [
    bad("RFC6749-AppB NUL in a value", GOOD.encode() + b"&scope=a\0b"),
    bad("RFC6749-AppB escaped NUL in a value", f"{GOOD}&scope=a%00b"),
    bad("RFC6749-AppB escaped NUL in a name", f"{GOOD}&sc%00ope=a"),
    bad("RFC6749-AppB escaped NUL in an unknown parameter", f"{GOOD}&x=%00"),
    bad("RFC6749-AppB broken escape", f"{GOOD}&scope=%zz", reason="MALFORMED_FORM"),
    bad("RFC6749-AppB escape cut short", f"{GOOD}&scope=%4", reason="MALFORMED_FORM"),
    bad("RFC6749-AppB lone percent", f"{GOOD}&scope=%", reason="MALFORMED_FORM"),
    bad("RFC6749-AppB broken escape in a name", f"{GOOD}&%=x", reason="MALFORMED_FORM"),
    bad("RFC6749-AppB raw bytes that are not UTF-8", GOOD.encode() + b"&scope=\xff\xfe", reason="MALFORMED_UTF8"),
    bad("RFC6749-AppB escaped bytes that are not UTF-8", f"{GOOD}&scope=%ff", reason="MALFORMED_UTF8"),
    bad("RFC6749-AppB overlong UTF-8", f"{GOOD}&scope=%c0%80", reason="MALFORMED_UTF8"),
    bad("RFC6749-AppB surrogate in UTF-8", f"{GOOD}&scope=%ed%a0%80", reason="MALFORMED_UTF8"),
    bad("RFC6749-AppB parameter without a name", f"{GOOD}&=x", reason="MALFORMED_FORM"),
    bad("RFC6749-3.2 101 parameters", GOOD + "".join(f"&p{n}=x" for n in range(99)), reason="TOO_MANY_PARAMETERS"),
    bad("RFC6749-3.2 10,000 parameters", GOOD + "&x" * 10_000, reason="TOO_MANY_PARAMETERS"),
    bad("RFC6749-3.2 random bytes", bytes(range(256)) * 8),
    bad("RFC6749-3.2 protobuf bytes", b"\x0a\x12client_credentials"),
    Case("RFC9110-15.5.14 body one byte over 64 KiB", 413, "invalid_request", b"x" * 65_537, reason="BODY_TOO_LARGE"),
    Case("RFC9110-15.5.14 body of 3 MB", 413, "invalid_request", b"x" * 3_000_000, reason="BODY_TOO_LARGE"),
    Case("RFC9110-15.5.14 wrong method with a body of 3 MB", 413, "invalid_request", b"x" * 3_000_000, method="PUT"),
]

GRANTS = [
    bad("RFC6749-4.4.2 empty body", ""),
    bad("RFC6749-4.4.2 grant_type missing", POSTED),
    bad("RFC6749-4.4.2 grant_type empty", f"grant_type=&{POSTED}"),
    bad("RFC6749-4.4.2 grant_type missing, Basic", "scope=storage.read", basic="{id}:{secret}"),
    bad("RFC6749-4.4.2 GRANT_TYPE in upper case", f"GRANT_TYPE=client_credentials&{POSTED}"),
]
GRANTS += [
    bad(f"RFC6749-5.2 grant_type {name}", f"grant_type={value}&{POSTED}", "unsupported_grant_type")
    for name, value in (
        ("password", "password&username=a&password=b"),
        ("authorization_code", "authorization_code&code=x"),
        ("refresh_token", "refresh_token&refresh_token=x"),
        ("implicit", "implicit"),
        ("JWT bearer", "urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion=x"),
        ("token exchange", "urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Atoken-exchange"),
        ("device code", "urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Adevice_code"),
        ("in upper case", "CLIENT_CREDENTIALS"),
        ("with a space before it", "+client_credentials"),
        ("with a newline behind it", "client_credentials%0A"),
        ("twice in one value", "client_credentials+client_credentials"),
        ("of 10,000 characters", "x" * 10_000),
        ("outside ASCII", "%D1%81lient_credentials"),
    )
]
GRANTS += [
    bad(
        "RFC6749-5.2 unsupported grant_type comes before wrong credentials",
        "grant_type=password&client_id=x",
        "unsupported_grant_type",
    ),
    bad(
        "RFC6749-5.2 unauthorized_client: an account that only introspects",
        posted("{introspector_id}", "{introspector_secret}"),
        "unauthorized_client",
    ),
    Case(
        "RFC6585-4 an account over its limit",
        429,
        "temporarily_unavailable",
        posted("{spent_id}", "{spent_secret}"),
        reason="RATE_LIMITED",
    ),
]

SCOPES = [
    bad(f"RFC6749-3.3 scope {name}", f"{GOOD}&scope={value}", "invalid_scope")
    for name, value in (
        ("unknown", "storage.delete"),
        ("of another role", "identity.accounts.write"),
        ("allowed and one that is not", "storage.read+identity.keys.write"),
        ("in upper case", "STORAGE.READ"),
        ("wildcard", "*"),
        ("prefix wildcard", "storage.*"),
        ("with a space before it", "+storage.read"),
        ("with a space behind it", "storage.read+"),
        ("with two spaces between", "storage.read++storage.write"),
        ("that is one space", "+"),
        ("with a tab", "storage.read%09storage.write"),
        ("with a newline", "storage.read%0Astorage.write"),
        ("with a quote", "%22storage.read%22"),
        ("with a backslash", "storage.read%5C"),
        ("with a comma", "storage.read,storage.write"),
        ("outside ASCII", "storage.r%C3%A9ad"),
        ("with a no-break space", "storage.read%C2%A0storage.write"),
        ("of 10,000 names", "+".join(["storage.x"] * 5_000)),
        ("of one very long name", "s" * 60_000),
    )
]

TARGETS = [
    bad(f"RFC8707-2 resource {name}", f"{GOOD}&resource={value}", "invalid_target")
    for name, value in (
        ("without a scheme", "artstore"),
        ("relative", "%2Fpath"),
        ("without a scheme but a host", "%2F%2Fhost%2Fpath"),
        ("with a fragment", "https%3A%2F%2Fa.example%2F%23x"),
        ("with an empty fragment", "https%3A%2F%2Fa.example%2F%23"),
        ("with a space", "https%3A%2F%2Fa.example%2Fa+b"),
        ("with a newline", "https%3A%2F%2Fa.example%2F%0A"),
        ("outside ASCII", "https%3A%2F%2F%C3%A4.example%2F"),
        ("with a broken escape", "https%3A%2F%2Fa.example%2F%25zz"),
        ("that is only a scheme", "https%3A"),
        ("not allowed", "https%3A%2F%2Fother.example%2F"),
        ("allowed, and one that is not", "https%3A%2F%2Fallowed.example%2F&resource=https%3A%2F%2Fother.example%2F"),
        ("that is the issuer, by a user", "{issuer}"),
    )
]
TARGETS += [
    bad(f"RFC8707-2 audience {name}", f"{GOOD}&audience={value}", "invalid_target")
    for name, value in (
        ("unknown", "elsewhere"),
        ("allowed, and one that is not", "artstore&audience=elsewhere"),
        ("in upper case", "ARTSTORE"),
        ("with a space", "artstore+artstore"),
        ("with a control character", "artstore%01"),
        ("outside ASCII", "%C3%A4"),
        ("of 10,000 characters", "x" * 10_000),
    )
]
TARGETS += [
    bad(
        "RFC8707-2 an allowed audience and a resource that is not",
        f"{GOOD}&audience=artstore&resource=x",
        "invalid_target",
    ),
]

JSON_GOOD = '"grant_type":"client_credentials","client_id":"{id}","client_secret":"{secret}"'


def in_json(id: str, body: str | bytes, error: str = "invalid_request", status: int = 400, **more: object) -> Case:
    named: dict[str, object] = {"kind": JSON, "path": LEGACY, **more}
    return Case(f"{id} (JSON)", status, error, body, **named)  # type: ignore[arg-type]


JSON_BODIES = [
    in_json(f"RFC8259 {name}", body, reason="MALFORMED_JSON")
    for name, body in (
        ("empty", ""),
        ("a list", "[]"),
        ("a string", '"x"'),
        ("a number", "1"),
        ("null", "null"),
        ("cut short", '{"grant_type"'),
        ("single quotes", "{'grant_type':'client_credentials'}"),
        ("a comment", '{"grant_type":"x"/**/}'),
        ("garbage behind it", "{}x"),
        ("NaN", '{"x":NaN}'),
        ("Infinity", '{"x":-Infinity}'),
        ("a number of 5,000 digits", '{"x":' + "9" * 5_000 + "}"),
        ("lists 30,000 deep", "[" * 30_000),
        ("objects 10,000 deep", '{"a":' * 10_000),
        ("a byte order mark", "\ufeff{}"),
        ("a form", GOOD),
    )
]
JSON_BODIES += [
    in_json("RFC8259-8.1 UTF-16", ("{" + JSON_GOOD + "}").encode("utf-16")),
    in_json("RFC8259-8.1 not UTF-8", b'{"x":"\xff"}', reason="MALFORMED_UTF8"),
    in_json(
        "RFC8259-4 a member twice", "{" + JSON_GOOD + ',"grant_type":"client_credentials"}', reason="REPEATED_PARAMETER"
    ),
    in_json("RFC8259-4 an unknown member twice", "{" + JSON_GOOD + ',"x":1,"x":1}', reason="REPEATED_PARAMETER"),
    in_json("RFC8259-4 a nested member twice", "{" + JSON_GOOD + ',"x":{"y":1,"y":1}}', reason="REPEATED_PARAMETER"),
    in_json("RFC8259-8.2 a lone surrogate", "{" + JSON_GOOD + ',"scope":"\\ud800"}'),
    in_json("RFC8259-7 an escaped NUL", "{" + JSON_GOOD + ',"scope":"\\u0000"}'),
    in_json("RFC6749-3.2 grant_type is a number", '{"grant_type":1}'),
    in_json("RFC6749-3.2 grant_type is a list", '{"grant_type":["client_credentials"]}'),
    in_json("RFC6749-3.2 client_id is an object", '{"grant_type":"client_credentials","client_id":{}}'),
    in_json("RFC6749-3.2 client_secret is true", '{"grant_type":"client_credentials","client_secret":true}'),
    in_json("RFC6749-3.2 scope is a list", "{" + JSON_GOOD + ',"scope":["storage.read"]}'),
    in_json("RFC6749-3.2 audience is a number", "{" + JSON_GOOD + ',"audience":1}'),
    in_json("RFC6749-3.2 audience is a list of numbers", "{" + JSON_GOOD + ',"audience":[1]}'),
    in_json("RFC6749-3.2 audience is a list of lists", "{" + JSON_GOOD + ',"audience":[["artstore"]]}'),
    in_json("RFC6749-4.4.2 grant_type missing", '{"client_id":"{id}"}'),
    in_json("RFC6749-4.4.2 grant_type null", '{"grant_type":null}'),
    in_json("RFC6749-5.2 grant_type password", '{"grant_type":"password"}', "unsupported_grant_type"),
    in_json("RFC6749-3.3 unknown scope", "{" + JSON_GOOD + ',"scope":"x"}', "invalid_scope"),
    in_json("RFC8707-2 unknown audience", "{" + JSON_GOOD + ',"audience":["x"]}', "invalid_target"),
    in_json(
        "RFC8707-2 resource with a fragment", "{" + JSON_GOOD + ',"resource":"https://a.example/#x"}', "invalid_target"
    ),
    in_json("RFC6749-2.3 Basic and client_secret", "{" + JSON_GOOD + "}", basic="{id}:{secret}"),
    in_json("RFC6749-2.3.1 no credentials", '{"grant_type":"client_credentials"}', "invalid_client", 401),
    in_json(
        "RFC6749-2.3.1 wrong secret",
        '{"grant_type":"client_credentials","client_id":"{id}","client_secret":"x"}',
        "invalid_client",
        401,
    ),
    in_json(
        "RFC6749-2.3.1 credentials in the URL",
        "{" + JSON_GOOD + "}",
        path=f"{LEGACY}?{POSTED}",
        reason="PARAMETERS_IN_URL",
    ),
    in_json("RFC9110-15.5.14 body of 100,000 bytes", b" " * 100_000, status=413, reason="BODY_TOO_LARGE"),
]

CASES = [
    *TWO_AUTHENTICATIONS,
    *CREDENTIALS,
    *BASIC,
    *METHODS,
    *REPEATED,
    *MEDIA,
    *URLS,
    *MALFORMED,
    *GRANTS,
    *SCOPES,
    *TARGETS,
    *JSON_BODIES,
]
