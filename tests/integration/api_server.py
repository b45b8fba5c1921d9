"""A real kube-apiserver with its etcd, as processes on loopback ports: no nodes, no controllers, RBAC on.

What a test sees is what Kubernetes stores and refuses. Objects stay as they are written: nothing garbage-collects
them and no pod ever starts. Every process is ended by its own handle.
"""

import contextlib
import http.client
import ipaddress
import json
import ssl
import subprocess
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from integration.etcd_processes import free_ports
from localcluster.artifacts import ensure_api_server_programs
from localcluster.progress import Progress

#: Seconds until the API server must answer; it takes three to five on two cores.
START_TIMEOUT = 90.0

#: What is written down of each request: who, what, with which answer. Enough to prove that nothing was written.
AUDIT_POLICY = """
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules: [{level: Metadata}]
"""


class ApiServer:
    """One API server that can be stopped and started again on the same data, port and certificates."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._programs = ensure_api_server_programs(Progress())
        self.port, self._etcd_port, self._etcd_peer_port = free_ports(3)
        self._pki = _Pki(folder)
        self._etcd: subprocess.Popen[bytes] | None = None
        self._server: subprocess.Popen[bytes] | None = None
        self._audit_mark = 0
        self.audit_log = folder / "audit.log"

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def kubeconfig(self, user: str, groups: Sequence[str] = ()) -> Path:
        """A kubeconfig for a user with a client certificate; rights come by RBAC, `system:masters` has all."""
        path = self._folder / f"{user.replace(':', '-')}.kubeconfig"
        if not path.exists():
            cert, key = self._pki.issue(user, groups)
            path.write_text(
                json.dumps(
                    {
                        "apiVersion": "v1",
                        "kind": "Config",
                        "current-context": "test",
                        "contexts": [{"name": "test", "context": {"cluster": "test", "user": user}}],
                        "clusters": [
                            {
                                "name": "test",
                                "cluster": {"server": self.url, "certificate-authority": str(self._pki.ca)},
                            }
                        ],
                        "users": [{"name": user, "user": {"client-certificate": str(cert), "client-key": str(key)}}],
                    }
                )
            )
        return path

    @property
    def admin_kubeconfig(self) -> Path:
        return self.kubeconfig("admin", ["system:masters"])

    def tls(self) -> ssl.SSLContext:
        """A client's TLS context that trusts the server and is the administrator."""
        cert, key = self._pki.issue("admin", ["system:masters"])
        context = ssl.create_default_context(cafile=str(self._pki.ca))
        context.load_cert_chain(cert, key)
        return context

    def start(self) -> None:
        """Start what does not run and wait until the API server is ready."""
        if self._etcd is None:
            self._etcd = self._spawn("etcd", self._etcd_arguments())
        if self._server is None:
            self._server = self._spawn("kube-apiserver", self._server_arguments())
        self._wait_until_ready()

    def stop(self, *, kill: bool = False) -> None:
        """Stop the API server, not its etcd."""
        if self._server is not None:
            _end(self._server, kill=kill)
            self._server = None

    def close(self) -> None:
        self.stop()
        if self._etcd is not None:
            _end(self._etcd, kill=False)
            self._etcd = None

    def mark_audit(self) -> None:
        """Forget the audit records so far."""
        self._audit_mark = self.audit_log.stat().st_size if self.audit_log.exists() else 0

    def audit(self, user: str | None = None) -> Iterator[dict[str, Any]]:
        """The requests that were answered since the mark, by one user or all."""
        with self.audit_log.open("rb") as log:
            log.seek(self._audit_mark)
            for line in log:
                record = json.loads(line)
                if user is None or record["user"]["username"] == user:
                    yield record

    def _etcd_arguments(self) -> list[str]:
        client, peer = f"http://127.0.0.1:{self._etcd_port}", f"http://127.0.0.1:{self._etcd_peer_port}"
        return [
            f"--data-dir={self._folder / 'etcd'}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--unsafe-no-fsync",
            "--log-level=warn",
        ]

    def _server_arguments(self) -> list[str]:
        policy = self._folder / "audit-policy.yaml"
        policy.write_text(AUDIT_POLICY)
        server_cert, server_key = self._pki.issue("kube-apiserver", (), server=True)
        signing_key = self._pki.signing_key()
        return [
            f"--etcd-servers=http://127.0.0.1:{self._etcd_port}",
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            f"--secure-port={self.port}",
            f"--tls-cert-file={server_cert}",
            f"--tls-private-key-file={server_key}",
            f"--client-ca-file={self._pki.ca}",
            f"--service-account-key-file={signing_key}",
            f"--service-account-signing-key-file={signing_key}",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--service-cluster-ip-range=10.96.0.0/16",
            "--authorization-mode=RBAC",
            # Without a controller manager no service account ever appears, and pods could not be created.
            "--disable-admission-plugins=ServiceAccount",
            "--endpoint-reconciler-type=none",
            f"--audit-policy-file={policy}",
            f"--audit-log-path={self.audit_log}",
            "--audit-log-mode=blocking-strict",
            "--shutdown-delay-duration=0s",
        ]

    def _spawn(self, program: str, arguments: Sequence[str]) -> subprocess.Popen[bytes]:
        with (self._folder / f"{program}.log").open("ab") as log:
            return subprocess.Popen([self._programs / program, *arguments], stdout=log, stderr=log, cwd=self._folder)

    def _wait_until_ready(self) -> None:
        assert self._server is not None
        assert self._etcd is not None
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline:
            for program, process in (("kube-apiserver", self._server), ("etcd", self._etcd)):
                if process.poll() is not None:
                    raise AssertionError(f"{program} ended with {process.returncode}:\n{self._last_words(program)}")
            connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=5, context=self.tls())
            with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
                connection.request("GET", "/readyz")
                if connection.getresponse().status == 200:
                    return
            time.sleep(0.1)
        raise AssertionError(f"kube-apiserver did not become ready:\n{self._last_words('kube-apiserver')}")

    def _last_words(self, program: str) -> str:
        return "\n".join((self._folder / f"{program}.log").read_text(errors="replace").splitlines()[-20:])


def _end(process: subprocess.Popen[bytes], *, kill: bool) -> None:
    if process.poll() is None:
        process.kill() if kill else process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class _Pki:
    """One authority for everybody: users, and the server itself."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test-ca")])
        self.ca = folder / "ca.crt"
        certificate = (
            self._builder(self._name, self._key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(sign=True), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.ca.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def issue(self, user: str, groups: Sequence[str], *, server: bool = False) -> tuple[Path, Path]:
        """Certificate and key files of a user, or of the server on loopback; made once."""
        stem = user.replace(":", "-")
        cert_file, key_file = self._folder / f"{stem}.crt", self._folder / f"{stem}.key"
        if not cert_file.exists():
            key = ec.generate_private_key(ec.SECP256R1())
            groups_and_name = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
            subject = x509.Name([*groups_and_name, x509.NameAttribute(NameOID.COMMON_NAME, user)])
            purpose = ExtendedKeyUsageOID.SERVER_AUTH if server else ExtendedKeyUsageOID.CLIENT_AUTH
            builder = (
                self._builder(subject, key)
                .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
                .add_extension(_usage(sign=False), critical=True)
                .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
            )
            if server:
                address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
                builder = builder.add_extension(x509.SubjectAlternativeName([address]), critical=False)
            certificate = builder.sign(self._key, hashes.SHA256())
            cert_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
            key_file.write_bytes(_pem(key))
        return cert_file, key_file

    def signing_key(self) -> Path:
        path = self._folder / "service-accounts.key"
        if not path.exists():
            path.write_bytes(_pem(ec.generate_private_key(ec.SECP256R1())))
        return path

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=5))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(identifier, critical=False)
            .add_extension(authority, critical=False)
        )


def _usage(*, sign: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=sign,
        crl_sign=sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
