"""Connections with TLS, on real sockets."""

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from tests.asgi.connections import (
    GET,
    Handler,
    answer_unread,
    is_closed,
    problem,
    receive_response,
)
from tests.asgi.uvicorn_server import connect, run_server

MALFORMED = b"NONSENSE\r\n\r\n"


def make_certificate(directory: Path) -> dict[str, Path]:
    """Write a certificate for `localhost` and its key, and return uvicorn's options for them."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(days=1))
    certificate = builder.sign(key, hashes.SHA256())
    (directory / "certificate").write_bytes(certificate.public_bytes(Encoding.PEM))
    (directory / "key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return {"ssl_certfile": directory / "certificate", "ssl_keyfile": directory / "key"}


def test_connection_with_tls_has_its_scheme_and_refusals(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A TLS connection cannot be closed for writing alone."""
    handler = Handler(answer_unread)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        run_server(handler, **make_certificate(tmp_path)) as (_server, port),
        context.wrap_socket(connect(port)) as client,
    ):
        client.sendall(GET + b"\r\n")
        assert receive_response(client)[2] == b"ok"
        client.sendall(MALFORMED)
        assert problem(receive_response(client)) == (400, "invalid")
        assert is_closed(client)
    assert handler.exchanges[0].scope["scheme"] == "https"
    assert not caplog.records
