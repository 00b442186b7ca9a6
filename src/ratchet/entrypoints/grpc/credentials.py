"""Mutual TLS on gRPC: each side shows a certificate of the same authority."""

from __future__ import annotations

from typing import Any

import grpc
import grpc.aio

from ratchet.kit.peers import RECONNECT_OPTIONS, PeerFiles


def server_credentials(peers: PeerFiles) -> grpc.ServerCredentials:
    """Files are read again at each handshake, so a new certificate needs no restart."""

    def configuration() -> grpc.ServerCertificateConfiguration:
        certificate, key, authority = peers.read()
        return grpc.ssl_server_certificate_configuration([(key, certificate)], authority)

    return grpc.dynamic_ssl_server_credentials(
        configuration(), configuration, require_client_authentication=True
    )


def channel(address: str, peers: PeerFiles | None) -> Any:
    """To the control plane, with or without certificates."""
    if peers is None:
        return grpc.aio.insecure_channel(address, RECONNECT_OPTIONS)
    certificate, key, authority = peers.read()
    return grpc.aio.secure_channel(
        address,
        grpc.ssl_channel_credentials(authority, key, certificate),
        RECONNECT_OPTIONS,
    )
