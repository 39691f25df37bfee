"""Key pairs, as DescribeKeyPairs answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flambe.cluster.providers.aws.api.aws_session import AwsSession


@dataclass(frozen=True)
class KeyPair:
    """A key pair of EC2; its public key and its fingerprint are empty where they are unknown."""

    name: str
    public_key: str = ""
    fingerprint: str = ""

    @classmethod
    def parse(cls, answer: Mapping[str, Any]) -> KeyPair:
        """Read a key pair of an answer."""
        return cls(answer["KeyName"], answer.get("PublicKey", ""), answer.get("KeyFingerprint", ""))


def list_key_pairs(session: AwsSession) -> list[KeyPair]:
    """Return the key pairs of a region."""
    answers = session.ec2.describe_key_pairs(IncludePublicKey=True)["KeyPairs"]
    return [KeyPair.parse(answer) for answer in answers]
