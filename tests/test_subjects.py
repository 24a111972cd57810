"""Whose certificate it is: one form for each kind of name, and everything else refused by its field."""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from artstore_grpc.errors import InvalidRequest
from artstore_grpc.subjects import FORMS, MAX_LENGTH, subject, subjects

FORM = {
    "": "",
    "san_dns:Query.ArtStore.internal": "san_dns:query.artstore.internal",
    "san_uri:spiffe://artstore/ns/prod/sa/query": "san_uri:spiffe://artstore/ns/prod/sa/query",
    "san_ip:2001:DB8:0:0::1": "san_ip:2001:db8::1",
    "san_ip:192.0.2.1": "san_ip:192.0.2.1",
    "san_email:query@artstore.example": "san_email:query@artstore.example",
    "subject_dn:CN=query,O=ArtStore": "subject_dn:CN=query,O=ArtStore",
    "subject_dn:CN=a\\,b,O=c": "subject_dn:CN=a\\,b,O=c",
}
"""A subject, and the form it is kept in."""

REFUSED = (
    "query",
    "cn:query",
    "SAN_DNS:query",
    "san_dns:",
    "san_dns:*.artstore.internal",
    "san_dns:a..b",
    "san_dns:a b",
    "san_dns:" + "a" * 64,
    "san_ip:1.2.3",
    "san_ip:192.0.2.0/24",
    "san_uri:query",
    "san_uri:spiffe://a b",
    "san_email:query",
    "subject_dn:",
    "subject_dn:query",
    "subject_dn:CN=",
    "subject_dn:=x",
    " san_dns:query",
    "san_dns:query\n",
    "san_uri:x:" + "a" * MAX_LENGTH,
)


@pytest.mark.parametrize(("given", "kept"), FORM.items())
def test_one_form(given: str, kept: str) -> None:
    """Names that mean the same are kept, and compared, as the same."""
    assert subject(given) == kept


@pytest.mark.parametrize("given", REFUSED, ids=lambda value: value[:30])
def test_what_is_no_subject(given: str) -> None:
    """Refused by its field; the value is not repeated."""
    with pytest.raises(InvalidRequest) as refused:
        subject(given)
    assert refused.value.violations[0].field == "certificate_subject"
    assert (given.partition(":")[2] or "query") not in str(refused.value)


@given(st.sampled_from(sorted(FORMS)), st.text(max_size=MAX_LENGTH))
def test_the_form_is_its_own(kind: str, value: str) -> None:
    """Whatever is taken stays what it is when it is sent again; all else is a refusal."""
    try:
        kept = subject(f"{kind}:{value}")
    except InvalidRequest:
        return
    assert subject(kept) == kept


def certificate(name: x509.Name, names: list[x509.GeneralName]) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    made = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(days=1))
    if names:
        made = made.add_extension(x509.SubjectAlternativeName(names), critical=not list(name))
    return made.sign(key, SHA256()).public_bytes(Encoding.PEM)


def test_the_subjects_of_a_certificate() -> None:
    """Each of its names, in the form that subjects are kept in."""
    name = x509.Name.from_rfc4514_string("CN=a\\,b,OU=Storage,O=ArtStore")
    names = [
        x509.DNSName("Query.Internal"),
        x509.DNSName("*.internal"),
        x509.UniformResourceIdentifier("spiffe://artstore/query"),
        x509.IPAddress(ipaddress.ip_address("2001:db8::1")),
        x509.RFC822Name("query@artstore.example"),
    ]
    found = subjects(certificate(name, names))
    assert found == {
        "subject_dn:CN=a\\,b,OU=Storage,O=ArtStore",
        "san_dns:query.internal",
        "san_dns:*.internal",
        "san_uri:spiffe://artstore/query",
        "san_ip:2001:db8::1",
        "san_email:query@artstore.example",
    }
    assert {subject(each) for each in found if "*" not in each} == {each for each in found if "*" not in each}


def test_certificates_without_names() -> None:
    """Without a subject, without alternative names, or no certificate at all: nobody's."""
    assert subjects(certificate(x509.Name([]), [x509.DNSName("a")])) == {"san_dns:a"}
    assert subjects(certificate(x509.Name.from_rfc4514_string("CN=a"), [])) == {"subject_dn:CN=a"}
    assert subjects(b"-----BEGIN CERTIFICATE-----\nnone\n-----END CERTIFICATE-----\n") == frozenset()
    assert subjects(b"") == frozenset()
