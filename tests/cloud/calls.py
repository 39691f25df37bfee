"""What a client asks of the cloud, read from the wire; and answers, written to it."""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl
from xml.sax.saxutils import escape

from moto.core.parse import PROTOCOL_PARSERS
from moto.core.serialize import SerializationContext, get_serializer_class
from moto.core.utils import get_service_model

# The names that services have in signatures, where they differ from those of their models.
SIGNED_AS = {"monitoring": "cloudwatch"}
# The names of models, where they differ from those of signatures and policies.
MODELS = {"servicequotas": "service-quotas"}
CREDENTIAL = re.compile(r"Credential=([^/]+)/\d+/([^/]+)/([^/]+)/aws4_request")
# What is not of the request itself: a token that is sent again is compared without them.
ENVELOPE = {"Action", "Version"}


class Refused(Exception):
    """An answer that is an error, as the service words it."""

    def __init__(self, code: str, message: str, status: int = 400) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.status = status


class Dropped(Exception):
    """The connection is closed without an answer."""


class Garbled(Exception):
    """What is answered is not what the service says: a part of it, or something else."""

    def __init__(self, share: float, instead: bytes = b"") -> None:
        super().__init__(share, instead)
        self.share = share
        self.instead = instead

    def body(self, answer: bytes) -> bytes:
        """Return what goes over the wire in place of an answer."""
        return self.instead or answer[: int(len(answer) * self.share)]


@dataclass
class Reply:
    """An answer as it goes over the wire."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass
class Call:
    """One request: which action of which service, with what, from where and when."""

    service: str
    action: str
    parameters: dict[str, Any]
    region: str
    access_key: str
    protocol: str
    form: dict[str, str] = field(default_factory=dict, repr=False)
    at: float = field(default_factory=time.time)
    outcome: str = ""  # "ok", the code of an error, or "dropped"; empty while it is answered

    @property
    def name(self) -> str:
        """Return the action as policies name it: ``ec2:RunInstances``."""
        return f"{self.service}:{self.action}"

    @property
    def identity(self) -> str:
        """Return what must be the same where a client token is used again."""
        rest = {k: v for k, v in self.form.items() if k not in ENVELOPE}
        return json.dumps(rest, sort_keys=True)


class Calls:
    """The log of all calls, oldest first."""

    def __init__(self) -> None:
        self._calls: list[Call] = []

    def append(self, call: Call) -> None:
        self._calls.append(call)

    def __iter__(self) -> Iterator[Call]:
        return iter(list(self._calls))

    def __len__(self) -> int:
        return len(self._calls)

    def of(self, action: str) -> list[Call]:
        """Return the calls of an action, such as ``RunInstances``."""
        return [call for call in self._calls if call.action == action]

    def count(self, action: str = "") -> int:
        """Return how many calls there were, of an action or at all."""
        return len(self.of(action)) if action else len(self._calls)

    def clear(self) -> None:
        """Begin anew."""
        self._calls.clear()


def read(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Call:
    """Read a request; one of a service that is not looked into has no parameters."""
    found = CREDENTIAL.search(headers.get("Authorization", ""))
    access_key, region, service = found.groups() if found else ("", "us-east-1", "")
    service = SIGNED_AS.get(service, service)
    kind = headers.get("Content-Type", "")
    target = headers.get("X-Amz-Target", "")
    if kind.startswith("application/x-www-form-urlencoded"):
        form = dict(parse_qsl(body.decode(), keep_blank_values=True))
        action, protocol = form.get("Action", ""), "ec2" if service == "ec2" else "query"
        service = service or "sts"  # the only one that is asked without a signature
    elif target:
        form, action, protocol = {}, target.rpartition(".")[2], "json"
    else:
        return Call(service, f"{method} {path}", {}, region, access_key, "rest")
    operation = get_service_model(MODELS.get(service, service)).operation_model(action)
    parameters = PROTOCOL_PARSERS[protocol](operation).parse(
        {
            "method": method,
            "values": form,
            "headers": headers,
            "body": body,
            "url_path": path,
            "url_params": {},
        }
    )
    return Call(service, action, dict(parameters), region, access_key, protocol, form)


def answer(call: Call, result: dict[str, Any]) -> Reply:
    """Write a result as the protocol of the call has it."""
    model = get_service_model(MODELS.get(call.service, call.service))
    operation = model.operation_model(call.action)
    serializer = get_serializer_class(call.service, call.protocol)
    done = serializer(operation, SerializationContext(str(uuid.uuid4()))).serialize(result)
    return Reply(done["status_code"], dict(done["headers"]), done["body"].encode())


def refuse(call: Call, error: Refused) -> Reply:
    """Write an error as the protocol of the call has it.

    https://docs.aws.amazon.com/ec2/latest/devguide/errors-overview.html#api-error-response
    """
    code, message, request = escape(error.code), escape(error.message), uuid.uuid4()
    if call.protocol == "json":
        body = json.dumps({"__type": error.code, "message": error.message})
        headers = {
            "Content-Type": "application/x-amz-json-1.1",
            # What clients that know the service by its older protocol look at.
            "x-amzn-query-error": f"{error.code};Sender",
        }
        return Reply(error.status, headers, body.encode())
    if call.protocol == "ec2":
        body = (
            f"<Response><Errors><Error><Code>{code}</Code><Message>{message}</Message></Error>"
            f"</Errors><RequestID>{request}</RequestID></Response>"
        )
    else:
        body = (
            f"<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code>"
            f"<Message>{message}</Message></Error><RequestId>{request}</RequestId></ErrorResponse>"
        )
    return Reply(error.status, {"Content-Type": "text/xml"}, body.encode())
