"""``site`` of a cluster: where its Report Site listens, if not on the loopback."""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from flambe._grammar import wrong_path
from flambe.cluster.options import Finding
from flambe.errors import did_you_mean

KEYWORDS = ("host", "certificate", "key")
FILES = ("certificate", "key")


@dataclass(frozen=True)
class SiteOptions:
    """How others reach the site.

    Attributes
    ----------
    host
        The address of the orchestrator that it listens on.
    certificate, key
        Files of this machine, both or none: with them it speaks TLS.
    """

    host: str
    certificate: Path | None = None
    key: Path | None = None

    @classmethod
    def of(cls, keywords: Mapping[str, object], base: Path) -> SiteOptions:
        """Return the options that the keywords of a file in this folder describe."""
        files = {
            name: base / Path(str(keywords[name])).expanduser()
            for name in FILES
            if name in keywords
        }
        return cls(str(keywords["host"]), **files)

    @property
    def digest(self) -> str:
        """A digest of the files: new ones take effect at the next run."""
        texts = [path.read_bytes() for path in (self.certificate, self.key) if path is not None]
        return hashlib.sha256(b"\0".join(texts)).hexdigest()[:16] if texts else ""


def findings(keywords: object, base: Path) -> Iterator[Finding]:
    """Yield what is wrong with the keywords of a file in this folder."""
    if not isinstance(keywords, Mapping):
        return  # the type of every keyword is checked elsewhere
    for name, value in keywords.items():
        if name not in KEYWORDS:
            hint = did_you_mean(str(name), KEYWORDS) or f"expected {', '.join(KEYWORDS)}"
            yield ("site", name), f"site: unknown keyword {name!r}", hint
        elif not isinstance(value, str) or not value:
            yield ("site", name), f"site: {name} cannot be {value!r}", "text"
        elif reason := wrong_path(value):
            yield ("site", name), f"site: {reason}", "a PEM file"
        elif name in FILES and (reason := _unreadable_reason(base / Path(value).expanduser())):
            yield ("site", name), f"site: cannot read the {name} {value}: {reason}", "a PEM file"
        elif name == "host" and not _is_address(value):
            hint = "an address of the orchestrator, or   0.0.0.0   for all of them"
            yield ("site", name), f"site: {value!r} is not an IP address", hint
    if "host" not in keywords:
        yield ("site",), "site needs the keyword 'host'", "the address to listen on"
    if ("certificate" in keywords) != ("key" in keywords):
        yield ("site",), "site: certificate and key belong together", "set both, or neither"


def _unreadable_reason(path: Path) -> str:
    try:
        text = path.read_bytes()
    except OSError as error:
        return str(error.strerror)
    if b"-----BEGIN OPENSSH" in text or path.resolve().is_relative_to(Path.home() / ".ssh"):
        return "it is an SSH key, which must stay on this machine"
    return "" if b"-----BEGIN" in text else "it is not PEM"


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
