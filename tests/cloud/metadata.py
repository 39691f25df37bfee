"""The metadata service that guests ask: http://169.254.169.254/latest, by version 2.

https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-categories.html
"""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

from tests.cloud import models

if TYPE_CHECKING:
    from tests.cloud.machine import Machine

TOKEN, TTL = "X-aws-ec2-metadata-token", "X-aws-ec2-metadata-token-ttl-seconds"


class Metadata:
    """Serves each guest what is known of its instance; who asks is told by their address."""

    def __init__(self, address: str, find: Callable[[str], Machine | None]) -> None:
        self._find = find
        self._tokens: dict[str, tuple[str, float]] = {}

        class Handler(BaseHTTPRequestHandler):
            def do_PUT(handler) -> None:  # noqa: N805
                self._put(handler)

            def do_GET(handler) -> None:  # noqa: N805
                self._get(handler)

            def log_message(handler, *_: object) -> None:  # noqa: N805
                pass

        self._server = ThreadingHTTPServer((address, 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.02,), daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    def _put(self, handler: BaseHTTPRequestHandler) -> None:
        """Give a token.

        https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-retrieval.html
        """
        seconds = handler.headers.get(TTL, "")
        if handler.path != "/latest/api/token" or not self._asker(handler):
            _reply(handler, 404, "")
        elif not seconds.isdigit() or not 1 <= int(seconds) <= 21600:
            _reply(handler, 400, "")
        else:
            token = secrets.token_urlsafe(40)
            self._tokens[token] = handler.client_address[0], time.monotonic() + int(seconds)
            _reply(handler, 200, token)

    def _get(self, handler: BaseHTTPRequestHandler) -> None:
        machine = self._asker(handler)
        if machine is None:
            _reply(handler, 404, "")
            return
        options = machine.model.metadata_options
        if options.http_endpoint == "disabled":
            _reply(handler, 403, "")
            return
        token = handler.headers.get(TOKEN)
        if not (self._good(token, handler) if token else options.http_tokens == "optional"):
            _reply(handler, 401, "")
            return
        found = document(machine, handler.path.removeprefix("/latest/"))
        _reply(handler, 404 if found is None else 200, found or "")

    def _asker(self, handler: BaseHTTPRequestHandler) -> Machine | None:
        return self._find(handler.client_address[0])

    def _good(self, token: str, handler: BaseHTTPRequestHandler) -> bool:
        owner, until = self._tokens.get(token, ("", 0.0))
        return owner == handler.client_address[0] and time.monotonic() < until


def document(machine: Machine, path: str) -> str | None:
    """Return what there is at a path below ``/latest/``."""
    model = machine.model
    if path == "user-data":
        return models.user_data(model).decode() or None
    if path == "dynamic/instance-identity/document":
        identity = {
            "instanceId": machine.id,
            "region": machine.region,
            "availabilityZone": model.availability_zone,
            "accountId": models.ACCOUNT,
            "imageId": model.image_id,
            "instanceType": model.instance_type,
            "privateIp": machine.private_address,
        }
        return json.dumps(identity)
    found = {k: v for k, v in _entries(machine).items() if v}
    name = path.removeprefix("meta-data").strip("/")
    if name in found:
        return found[name]
    if name == "public-keys" and model.key_name:
        return f"0={model.key_name}"  # the one list that is written so
    prefix = f"{name}/" if name else ""
    below = sorted({_next(key.removeprefix(prefix)) for key in found if key.startswith(prefix)})
    return "\n".join(below) or None


def _next(rest: str) -> str:
    head, slash, _ = rest.partition("/")
    return head + slash


def _entries(machine: Machine) -> dict[str, str]:
    model = machine.model
    key = models.ec2(machine.region).key_pairs.get(model.key_name)
    entries = {
        "ami-id": model.image_id,
        "ami-launch-index": str(model.ami_launch_index),
        "hostname": model.private_dns_name,
        "instance-id": machine.id,
        "instance-life-cycle": model.lifecycle or "on-demand",
        "instance-type": model.instance_type,
        "local-hostname": model.private_dns_name,
        "local-ipv4": machine.private_address,
        "placement/availability-zone": str(model.availability_zone),
        "placement/region": machine.region,
        "public-hostname": model.public_dns_name or "",
        "public-ipv4": machine.public_address,
        "security-groups": "\n".join(group.name for group in model.security_groups),
    }
    if key is not None:
        entries["public-keys/0/openssh-key"] = key.public_key
    if machine.interruption is not None:
        entries["spot/instance-action"] = json.dumps(machine.interruption)
    if model.metadata_options.instance_metadata_tags == "enabled":
        entries |= {f"tags/instance/{tag['key']}": tag["value"] for tag in model.get_tags()}
    return entries


def _reply(handler: BaseHTTPRequestHandler, status: int, text: str) -> None:
    data = text.encode()
    handler.send_response(status)
    handler.send_header("Content-Type", "text/plain")
    handler.send_header("Content-Length", str(len(data)))
    handler.end_headers()
    handler.wfile.write(data)
