"""What cloud-init would make of user data: a plan, which the guest carries out.

The hosts are copies of this machine, which need not have a YAML parser for the system's Python; so
the text is read here. https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/user-data.html
"""

from __future__ import annotations

import base64
import email
import gzip
from dataclasses import asdict, dataclass, field
from typing import Any

from ruamel.yaml import YAML

# The parts of https://cloudinit.readthedocs.io/en/latest/reference/modules.html that are done here.
DONE = {"write_files", "bootcmd", "runcmd", "ssh_keys", "ssh_authorized_keys"}
# Those that ask for what is so already.
SO_ALREADY = {"ssh_deletekeys", "ssh_genkeytypes", "disable_root", "ssh_pwauth", "output"}


@dataclass
class Plan:
    """What is done at boot: commands at each, all else at the first."""

    write_files: list[dict[str, Any]] = field(default_factory=list)
    bootcmd: list[str | list[str]] = field(default_factory=list)
    runcmd: list[str | list[str]] = field(default_factory=list)
    scripts: list[str] = field(default_factory=list)
    boothooks: list[str] = field(default_factory=list)
    ssh_keys: dict[str, str] = field(default_factory=dict)
    ssh_authorized_keys: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)  # what is asked for and not done
    login_delay: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def read(data: bytes) -> Plan:
    """Return the plan that user data stands for."""
    plan = Plan()
    if data.startswith(b"\x1f\x8b"):
        data = gzip.decompress(data)
    _add(plan, data.decode())
    return plan


def _add(plan: Plan, text: str) -> None:
    first = text.partition("\n")[0].strip()
    if not text.strip():
        return
    if first == "#cloud-config":
        _add_config(plan, text)
    elif first == "#cloud-boothook":
        plan.boothooks.append("#!/bin/sh\n" + text if "#!" not in text else text.partition("\n")[2])
    elif first.startswith("#!"):
        plan.scripts.append(text)
    elif first.lower().startswith(("content-type: multipart/", "mime-version:")):
        for part in email.message_from_string(text).walk():
            if not part.is_multipart():
                _add(plan, str(part.get_payload(decode=True).decode()))  # type: ignore[union-attr]
    else:
        plan.unknown.append(f"user data that starts with {first[:40]!r}")


def _add_config(plan: Plan, text: str) -> None:
    config = YAML(typ="safe", pure=True).load(text) or {}
    plan.unknown += sorted(set(config) - DONE - SO_ALREADY)
    for each in config.get("write_files", []):
        plan.write_files.append({**each, "content": _content(each)})
    plan.bootcmd += config.get("bootcmd", [])
    plan.runcmd += config.get("runcmd", [])
    plan.ssh_keys.update(config.get("ssh_keys", {}))
    plan.ssh_authorized_keys += config.get("ssh_authorized_keys", [])


def _content(entry: dict[str, Any]) -> str:
    content = str(entry.get("content", ""))
    encoding = str(entry.get("encoding", "text/plain"))
    if encoding in ("b64", "base64", "gz+b64", "gzip+base64"):
        data = base64.b64decode(content)
        return (gzip.decompress(data) if encoding.startswith("gz") else data).decode()
    return content
