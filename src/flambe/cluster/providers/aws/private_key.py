"""A private key on this machine: its public half, its fingerprints, and the agents that hold it."""

from __future__ import annotations

import base64
import hashlib
import os
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from flambe.errors import ConfigError, Problem

_OPENSSH = b"openssh-key-v1\0"
_RSA = bytes.fromhex("300d06092a864886f70d0101010500")  # rsaEncryption, as DER has it
_SEQUENCE, _INTEGER, _BITS, _OCTETS = 0x30, 0x02, 0x03, 0x04
TIMEOUT = 30  # seconds


@dataclass(frozen=True)
class PrivateKey:
    """A private key of this machine.

    Attributes
    ----------
    path
        Its file.
    public
        Its public half, as SSH sends it; empty where only the passphrase would tell.
    is_encrypted
        Whether it has a passphrase.
    """

    path: Path
    public: bytes
    is_encrypted: bool

    @classmethod
    def read(cls, path: Path) -> PrivateKey:
        """Read it, by trying to use it.

        Raises
        ------
        ConfigError
            If it is not one.
        """
        command = ["ssh-keygen", "-y", "-P", "", "-f", str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=TIMEOUT)
        if done.returncode == 0:
            return cls(path, public_blob(done.stdout), is_encrypted=False)
        if "passphrase" in done.stderr:
            return cls(path, _public_half(path), is_encrypted=True)
        lines = done.stderr.strip().splitlines() or ["ssh-keygen cannot read it"]
        hint = "the path of a private key, as ssh-keygen or EC2 writes one"
        raise ConfigError(Problem(f"the key {path} cannot be used: {lines[-1]}", hint=hint))

    def fingerprints(self) -> Iterator[str]:
        """Yield its fingerprints, in each form in which EC2 has them.

        https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/verify-keys.html
        """
        fields = _fields(self.public)
        if fields and fields[0] == b"ssh-ed25519":
            yield base64.b64encode(hashlib.sha256(self.public).digest()).decode().rstrip("=")
        if fields and fields[0] == b"ssh-rsa":  # imported
            yield _colons(hashlib.md5(_subject(fields[1], fields[2])).digest())
        if (der := _pkcs8(self.path)) is not None:  # made by EC2
            yield _colons(hashlib.sha1(der).digest())


def is_in_agent(public: bytes) -> bool:
    """Whether an SSH agent holds a key, or ssh gets its passphrase in another way."""
    environment = dict(os.environ)
    done = subprocess.run(
        ["ssh", "-G", "localhost"], capture_output=True, text=True, check=False, timeout=TIMEOUT
    )
    for line in done.stdout.splitlines():
        name, _, value = line.partition(" ")
        if line == "usekeychain yes":
            return True  # macOS keeps the passphrase
        if name == "identityagent" and value not in ("SSH_AUTH_SOCK", "none"):
            environment["SSH_AUTH_SOCK"] = os.path.expanduser(value)
    done = subprocess.run(
        ["ssh-add", "-L"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT,
    )
    return bool(public) and public in map(public_blob, done.stdout.splitlines())


# -- what files of keys are made of -------------------------------------------------------------


def public_blob(line: str) -> bytes:
    """Return the public key of a line such as ``ssh-ed25519 AAAA… comment``."""
    words = line.split()
    try:
        return base64.b64decode(words[1], validate=True) if len(words) > 1 else b""
    except ValueError:
        return b""


def _public_half(path: Path) -> bytes:
    """Return the public half of a key with a passphrase; empty if nothing has it."""
    _, data = _pem(path)
    if data.startswith(_OPENSSH):
        # cipher, kdf and its options, how many keys, the public half
        fields = _fields(data[len(_OPENSSH) :], before_number=3)
        return fields[3] if len(fields) > 3 else b""
    try:
        return public_blob(path.with_name(f"{path.name}.pub").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return b""


def _pem(path: Path) -> tuple[str, bytes]:
    """Return the kind of a PEM file, and what is in it; nothing of one that is encrypted as PEM."""
    try:
        lines = path.read_text(encoding="ascii").split("-----")
        kind, body = lines[1].removeprefix("BEGIN "), lines[2]
        return kind, base64.b64decode("".join(body.split()), validate=True)
    except (OSError, ValueError, IndexError):
        return "", b""


def _fields(data: bytes, *, before_number: int = -1) -> list[bytes]:
    """Return the fields of SSH's binary form; a number stands after so many of them, if at all."""
    fields: list[bytes] = []
    while len(data) >= 4:
        if len(fields) == before_number:
            data, before_number = data[4:], -1
            continue
        (size,) = struct.unpack(">I", data[:4])
        fields.append(data[4 : 4 + size])
        data = data[4 + size :]
    return fields


def _pkcs8(path: Path) -> bytes | None:
    """Return an RSA key as PKCS #8; nothing of one that is stored in another way, or encrypted."""
    kind, data = _pem(path)
    if kind == "RSA PRIVATE KEY" and data:
        return _der(_SEQUENCE, _der(_INTEGER, b"\0"), _RSA, _der(_OCTETS, data))
    return data if kind == "PRIVATE KEY" and _RSA in data[:40] else None


def _subject(exponent: bytes, modulus: bytes) -> bytes:
    """Return an RSA public key as a SubjectPublicKeyInfo."""
    numbers = _der(_SEQUENCE, _der(_INTEGER, modulus), _der(_INTEGER, exponent))
    return _der(_SEQUENCE, _RSA, _der(_BITS, b"\0", numbers))


def _der(tag: int, *parts: bytes) -> bytes:
    data = b"".join(parts)
    size = len(data)
    if size < 0x80:
        return bytes([tag, size]) + data
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + data


def _colons(digest: bytes) -> str:
    return digest.hex(":")
