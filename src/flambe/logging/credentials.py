"""Credentials that others find for us: hidden before they are used."""

from __future__ import annotations

import configparser
import contextlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from flambe.logging import redact

_SECRET_VARIABLES = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
_SECRET_OPTIONS = tuple(name.lower() for name in _SECRET_VARIABLES)


class _Events(Protocol):
    def register(self, name: str, handler: Callable[..., None], *, unique_id: str) -> object: ...


class _Session(Protocol):
    @property
    def events(self) -> _Events: ...


def mask_aws(session: _Session) -> None:
    """Hide the credentials of a boto3 session, of each role it assumes too, from their first use.

    They are not looked up for that: a role or a single sign-on may ask AWS, or a person.
    """
    session.events.register("before-sign", _mask_signer, unique_id="flambe-mask")


def _mask_signer(request_signer: object, **_: object) -> None:
    # The session's own credentials would not do: a role is assumed with others.
    credentials = getattr(request_signer, "_credentials", None)
    if credentials is not None:
        frozen = credentials.get_frozen_credentials()
        for value in (frozen.secret_key, frozen.token):
            redact.add(value or "")


def mask_aws_variables(variables: Mapping[str, str]) -> None:
    """Hide the credentials that environment variables hold, and those of AWS's file of them."""
    for name in _SECRET_VARIABLES:
        redact.add(variables.get(name, ""))
    path = variables.get("AWS_SHARED_CREDENTIALS_FILE") or Path.home() / ".aws" / "credentials"
    profiles = configparser.RawConfigParser()
    with contextlib.suppress(OSError, RuntimeError, ValueError, configparser.Error):
        profiles.read(os.path.expanduser(path), encoding="utf-8")
    for section in profiles.sections():
        for option in _SECRET_OPTIONS:
            redact.add(profiles.get(section, option, fallback=""))
