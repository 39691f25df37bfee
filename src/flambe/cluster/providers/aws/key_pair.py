"""Whether the private key on this machine belongs to the key pair of the cluster file."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence

from flambe.cluster.providers.aws.api.aws_errors import is_aws_error, reason
from flambe.cluster.providers.aws.api.aws_session import AwsSession
from flambe.cluster.providers.aws.api.key_pairs import KeyPair, list_key_pairs
from flambe.cluster.providers.aws.aws_config import AwsConfig
from flambe.cluster.providers.aws.private_key import PrivateKey, is_in_agent, public_blob
from flambe.errors import ConfigError, Problem, did_you_mean, listed


def check(config: AwsConfig, session: AwsSession, notify: Callable[[str], None]) -> None:
    """Check that the private key belongs to the key pair, and can be used without a passphrase.

    Raises
    ------
    ConfigError
        If it does not, or cannot.
    """
    key = PrivateKey.read(config.key)
    try:
        pairs = list_key_pairs(session)
    except Exception as error:
        if not is_aws_error(error):
            raise
        notify(f"AWS: the key pair could not be looked up: {reason(error)}")
        pairs = [KeyPair(config.key_name)]
    pair = next((pair for pair in pairs if pair.name == config.key_name), None)
    if pair is None:
        raise _unknown_pair(config.key_name, session.region, [pair.name for pair in pairs])
    if matches(key, pair) is False:
        raise _wrong_key(key, pair, session.region, pairs)
    if key.is_encrypted and not is_in_agent(key.public or public_blob(pair.public_key)):
        hint = f"ssh-add {shlex.quote(str(key.path))}"
        text = f"the key {key.path} has a passphrase, and no agent holds it"
        raise ConfigError(Problem(text, hint=hint))


def matches(key: PrivateKey, pair: KeyPair) -> bool | None:
    """Return whether a private key belongs to a key pair; None where that cannot be decided."""
    if key.public and pair.public_key:
        return key.public == public_blob(pair.public_key)
    theirs = pair.fingerprint.removeprefix("SHA256:").rstrip("=")
    ours = list(key.fingerprints())
    if theirs in ours:
        return True
    # Only fingerprints of the same form show that the keys differ.
    return False if any(len(fingerprint) == len(theirs) for fingerprint in ours) else None


def _unknown_pair(name: str, region: str, names: Sequence[str]) -> ConfigError:
    existing = f"it has {listed(sorted(names))}" if names else "it has none"
    hint = did_you_mean(name, names) or existing
    text = f"AWS: there is no key pair {name!r} in {region}"
    return ConfigError(
        Problem(text, hint=f"key_name is the name of a key pair of EC2 in this region; {hint}")
    )


def _wrong_key(
    key: PrivateKey, pair: KeyPair, region: str, pairs: Sequence[KeyPair]
) -> ConfigError:
    text = f"{key.path} is not the private key of the key pair {pair.name!r} in {region}"
    fingerprint = next(key.fingerprints(), "unknown")
    hint = f"its fingerprint is {fingerprint}, and that of the pair {pair.fingerprint}"
    if owners := [other.name for other in pairs if matches(key, other)]:
        hint = f"it is that of {listed(owners)}: change key_name, or key"
    return ConfigError(Problem(f"AWS: {text}", hint=hint))
