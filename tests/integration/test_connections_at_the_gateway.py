"""Connections to a real Envoy: TLS, client certificates, h2, and draining."""

from __future__ import annotations

import asyncio
import datetime
import ssl
import subprocess
import threading
import time
from pathlib import Path

import httpx2 as httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from ratchet.adapters.envoy.drain import drain
from ratchet.adapters.envoy.listener import Tls, tls_of
from ratchet.core.errors import Rejected
from ratchet.core.serving import Access, Serving
from tests.gateway import Gateway, running_gateway
from tests.integration.test_routing_at_the_gateway import OPEN

SERVING = Serving(access=Access.OPEN)


class Authority:
    """Signs certificates for a test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])
        self.file = folder / "ca.pem"
        self.file.write_bytes(self._signed(self.name, self.key.public_key(), is_ca=True))

    def _signed(self, name: x509.Name, key: ec.EllipticCurvePublicKey, *, is_ca: bool) -> bytes:
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self.name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), False)
        )
        signed = builder.sign(self.key, hashes.SHA256())
        return signed.public_bytes(serialization.Encoding.PEM)

    def issue(self, stem: str, common_name: str) -> tuple[Path, Path]:
        """Certificate and key, each moved into place as certificate managers do."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        files = self.folder / f"{stem}.pem", self.folder / f"{stem}.key"
        private = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        contents = self._signed(name, key.public_key(), is_ca=False), private
        for file, content in zip(reversed(files), reversed(contents), strict=True):
            beside = file.with_suffix(".part")
            beside.write_bytes(content)
            beside.rename(file)
        return files


def shown_name(gateway: Gateway, authority: Authority) -> str:
    pem = ssl.get_server_certificate(
        ("localhost", gateway.places.port), ca_certs=str(authority.file)
    )
    names = x509.load_pem_x509_certificate(pem.encode()).subject
    return str(names.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)


def test_tls_speaks_both_versions_of_http_and_takes_new_certificates(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    tls = Tls(*authority.issue("server", "first"))
    with running_gateway(tls) as gateway:
        gateway.serve(OPEN, serving=SERVING)
        url = f"https://localhost:{gateway.places.port}/v1/models"
        versions = {
            flag: subprocess.run(
                ["curl", "-sS", "--cacert", authority.file, flag, "-o", "/dev/null",
                 "-w", "%{http_code} %{http_version}", url],
                capture_output=True, text=True, check=True,
            ).stdout
            for flag in ("--http1.1", "--http2")
        }  # fmt: skip
        before = shown_name(gateway, authority)
        authority.issue("server", "second")
        deadline = time.monotonic() + 5
        while shown_name(gateway, authority) != "second" and time.monotonic() < deadline:
            time.sleep(0.05)
        after = shown_name(gateway, authority)

    assert versions == {"--http1.1": "200 1.1", "--http2": "200 2"}
    assert (before, after) == ("first", "second")


def test_a_client_shows_a_certificate_where_one_is_asked(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    tls = Tls(*authority.issue("server", "server"), client_ca=authority.file)
    certificate, key = authority.issue("client", "client")
    with running_gateway(tls) as gateway:
        gateway.serve(OPEN, serving=SERVING)
        url = f"https://localhost:{gateway.places.port}/v1/models"
        context = ssl.create_default_context(cafile=str(authority.file))
        with pytest.raises(httpx.TransportError):
            httpx.get(url, verify=context)
        context.load_cert_chain(certificate, key)
        answer = httpx.get(url, verify=context)

    assert answer.status_code == 200


def test_half_of_a_tls_setting_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(Rejected, match="set both, or none"):
        tls_of({"RATCHET_GATEWAY_TLS_CERT": "/x"})
    missing = {"RATCHET_GATEWAY_TLS_CERT": "/x", "RATCHET_GATEWAY_TLS_KEY": "/y"}
    with pytest.raises(Rejected, match="found no file /x"):
        tls_of(missing)
    assert tls_of({}) is None


def test_a_drained_gateway_finishes_its_streams_and_takes_no_more() -> None:
    with running_gateway() as gateway:
        gateway.serve(OPEN, serving=SERVING)
        ended: list[int] = []
        slow = {"x-test-wait": "3"}
        asking = [
            threading.Thread(
                target=lambda: ended.append(gateway.ask(None, headers=slow).status_code)
            )
            for _ in range(5)
        ]
        for thread in asking:
            thread.start()
        with httpx.Client(base_url=gateway.url) as kept:
            kept.get("/health")
            time.sleep(0.5)
            draining = threading.Thread(target=lambda: ended.append(drained(gateway, 20.0)))
            draining.start()
            time.sleep(0.3)
            told = kept.get("/health").headers["connection"]
        time.sleep(1.2)
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{gateway.url}/health")
        for thread in (*asking, draining):
            thread.join()

    assert told == "close"
    assert ended == [200] * 5 + [0]


def test_a_drain_ends_at_its_cap_and_counts_what_runs() -> None:
    with running_gateway() as gateway:
        gateway.serve(OPEN, serving=SERVING)
        asking = threading.Thread(
            target=lambda: gateway.ask(None, headers={"x-test-wait": "2"}), daemon=True
        )
        asking.start()
        time.sleep(0.3)

        assert drained(gateway, 0.5) == 1
        asking.join()


def drained(gateway: Gateway, cap_seconds: float) -> int:
    return asyncio.run(drain(gateway.places.admin_socket, cap_seconds))
