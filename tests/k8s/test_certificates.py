"""Certificates without cert-manager: what components/mtls/certificates.sh makes is what production mounts."""

import base64
import os
import ssl
import stat
import subprocess
from pathlib import Path

import pytest
import yaml
from cryptography import x509

from tests.k8s.rendering import BY_HAND, K8S, PRODUCTION, objects, pod, workloads
from tests.k8s.tools import ROOT, TOOLS

pytestmark = pytest.mark.tool("kubectl")

SCRIPT = K8S / "components" / "mtls" / "certificates.sh"
KEYS = {"tls.crt", "tls.key", "ca.crt"}


def made(folder: Path, *names: str) -> dict[str, dict[str, bytes]]:
    """The Secrets that the script prints, by name."""
    done = subprocess.run(
        ["sh", str(SCRIPT), str(folder), *names],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        timeout=60,
        env={**os.environ, "PATH": f"{TOOLS}{os.pathsep}{os.environ['PATH']}"},
    )
    documents = [each for each in yaml.safe_load_all(done.stdout) if each]
    assert {(each["kind"], each["type"], each["metadata"]["namespace"]) for each in documents} == {
        ("Secret", "kubernetes.io/tls", "tollgate")
    }
    return {
        each["metadata"]["name"]: {key: base64.b64decode(value) for key, value in each["data"].items()}
        for each in documents
    }


def names_in(certificate: bytes) -> set[str]:
    """The DNS names."""
    extensions = x509.load_pem_x509_certificate(certificate).extensions
    return set(extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(x509.DNSName))


def greet(server: ssl.SSLObject, client: ssl.SSLObject) -> None:
    """A handshake in memory: each reads what the other wrote.

    Raises:
        ssl.SSLError: one does not trust the other.
    """
    waiting = [server, client]
    while waiting:
        side = waiting.pop(0)
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            waiting.append(side)


def sides(
    folder: Path, server: str, client: str, *, hostname: str, ca: str = "ca.crt"
) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """Both ends of a connection where each asks for the other's certificate."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    contexts = []
    for name, purpose in ((server, ssl.Purpose.CLIENT_AUTH), (client, ssl.Purpose.SERVER_AUTH)):
        context = ssl.create_default_context(purpose, cafile=str(folder / ca))
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_cert_chain(folder / name / "tls.crt", folder / name / "tls.key")
        contexts.append(context)
    return (
        contexts[0].wrap_bio(to_server, to_client, server_side=True),
        contexts[1].wrap_bio(to_client, to_server, server_hostname=hostname),
    )


def test_the_script_makes_the_secrets_that_production_mounts_without_cert_manager(tmp_path: Path) -> None:
    assert not list(objects(BY_HAND, "Certificate", "Issuer"))
    mounted = {
        volume["secret"]["secretName"]
        for workload in workloads(BY_HAND).values()
        for volume in pod(workload)["spec"].get("volumes", [])
        if "secret" in volume and not volume["secret"].get("optional")
    }
    secrets = made(tmp_path / "made")
    assert mounted == set(secrets)
    assert all(set(each) == KEYS for each in secrets.values())


def test_its_certificates_have_the_names_of_those_of_cert_manager(tmp_path: Path) -> None:
    secrets = made(tmp_path / "made")
    for each in objects(PRODUCTION, "Certificate"):
        if not each["spec"].get("isCA"):
            assert set(each["spec"]["dnsNames"]) <= names_in(secrets[each["spec"]["secretName"]]["tls.crt"])
    for name, secret in secrets.items():
        subject = x509.load_pem_x509_certificate(secret["tls.crt"]).subject.rfc4514_string()
        assert f"CN={name}" == f"{subject}-tls"


def test_with_them_both_sides_trust_each_other_and_no_other_name(tmp_path: Path) -> None:
    made(tmp_path / "made")
    for service in ("auth", "catalog", "usage"):
        for caller in ("edge", "operator"):
            greet(*sides(tmp_path / "made", service, caller, hostname=service))
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        greet(*sides(tmp_path / "made", "auth", "edge", hostname="usage"))


def test_a_second_run_keeps_the_ca_renews_the_rest_and_makes_what_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "made"
    first, second = made(folder), made(folder)
    assert first["edge-tls"]["ca.crt"] == second["edge-tls"]["ca.crt"]
    assert first["edge-tls"]["tls.crt"] != second["edge-tls"]["tls.crt"]
    assert set(made(folder, "internal")) == {"internal-tls"}
    greet(*sides(folder, "usage", "internal", hostname="usage"))


def test_nobody_else_can_read_what_it_keeps(tmp_path: Path) -> None:
    made(tmp_path / "made")
    for path in (tmp_path / "made").rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def test_another_ca_is_not_trusted(tmp_path: Path) -> None:
    made(tmp_path / "made")
    made(tmp_path / "other")
    (tmp_path / "made" / "other.crt").write_bytes((tmp_path / "other" / "ca.crt").read_bytes())
    with pytest.raises(ssl.SSLCertVerificationError, match="verify failed"):
        greet(*sides(tmp_path / "made", "usage", "edge", hostname="usage", ca="other.crt"))
