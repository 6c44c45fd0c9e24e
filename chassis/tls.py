"""gRPC servers over TLS: certificates on both sides, read again when their files change, without a restart."""

import grpc

from chassis.log import logger
from protos.client import TlsContent, TlsFiles, TlsReader

_log = logger(__name__)


def tls_of_server(files: TlsFiles) -> grpc.ServerCredentials:
    """TLS that asks every caller for a certificate of the CA. The files are looked at when somebody connects.

    Raises:
        TlsUnusable: they cannot be read, or do not belong together.
    """
    reader = TlsReader(files, on_trouble=lambda trouble: _log.error("certificates not replaced", reason=trouble))
    in_use = reader.newest()

    def changed() -> grpc.ServerCertificateConfiguration | None:
        """Called by gRPC at every handshake, in a thread of its own."""
        nonlocal in_use
        newest = reader.newest()
        if newest is in_use:
            return None
        in_use = newest
        _log.info("certificates replaced", file=str(files.certificate))
        return _configuration(newest)

    tls: grpc.ServerCredentials = grpc.dynamic_ssl_server_credentials(
        _configuration(in_use),
        changed,  # type: ignore[arg-type]  # gRPC's documentation has None for "as before"; its types do not
        require_client_authentication=True,
    )
    return tls


def _configuration(content: TlsContent) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(content.key, content.certificate)], content.ca)
