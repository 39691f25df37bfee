"""Credentials that others find for us: hidden before they are used."""

from __future__ import annotations

from typing import Any

from flambe.logging import redact


def mask_aws(session: Any) -> None:
    """Hide the credentials of a boto3 session, of each role it assumes too, from their first use.

    They are not looked up for that: a role or a single sign-on may ask AWS, or a person.
    """
    session.events.register("before-sign", _mask_signer, unique_id="flambe-mask")


def _mask_signer(request_signer: Any, **_: Any) -> None:
    # The session's own credentials would not do: a role is assumed with others.
    credentials = getattr(request_signer, "_credentials", None)
    if credentials is not None:
        frozen = credentials.get_frozen_credentials()
        for value in (frozen.secret_key, frozen.token):
            redact.add(value or "")
