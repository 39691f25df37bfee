"""Why a call of AWS failed, in words of ours: what AWS refused, or why it could not be asked."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from flambe.errors import ConfigError, FlambeError, Problem, RunError, how_to_install

_LOG_IN = "log in again: aws sso login, or aws configure; aws sts get-caller-identity tries it"
_SETTINGS = "see ~/.aws/config and the variables AWS_..., and: aws configure list"
_RETRY = "the same command continues, when AWS can be reached"

_HINTS = {
    "ExpiredToken": "log in again: aws sso login, or renew the keys",
    "ExpiredTokenException": "log in again: aws sso login, or renew the keys",
    "RequestExpired": "log in again, and see that the clock of this machine is right",
    "AuthFailure": "are the keys right, and the clock of this machine?",
    "InvalidClientTokenId": "are the keys right?",
    "UnrecognizedClientException": "are the keys right?",
    "UnauthorizedOperation": "the policy of this user lacks that action: see flambe aws policy",
    "AccessDenied": "the policy of this user lacks that action: see flambe aws policy",
    "AccessDeniedException": "the policy of this user lacks that action: see flambe aws policy",
    "InstanceLimitExceeded": "ask AWS for a higher limit, or use fewer instances",
    "VcpuLimitExceeded": "ask AWS for a higher quota of this type: Service Quotas, EC2",
    "InvalidKeyPair.NotFound": "key_name is the name of a key pair of EC2 in this region",
    "InvalidSubnetID.NotFound": "subnet_id is a subnet of this region",
    "InvalidGroup.NotFound": "security_group is the id of one in the network of the subnet",
    "InvalidAMIID.NotFound": "the image is one of this region",
    "TagLimitExceeded": "an instance has 50 tags at most, those of flambe included",
}

# What boto3 raises → what it means, and what helps; by the names of its classes and their bases.
_WORDS = {
    "ReadTimeoutError": ("AWS did not answer in time", _RETRY),
    "ConnectTimeoutError": ("no connection to AWS in time", _RETRY),
    "ConnectionClosedError": ("the connection was closed before AWS answered", _RETRY),
    "ResponseStreamingError": ("the connection was closed within the answer", _RETRY),
    "IncompleteReadError": ("the connection was closed within the answer", _RETRY),
    "ResponseParserError": (
        "what answered was not AWS, or its answer was cut off",
        "does a proxy, or the login page of a network, answer in its place?",
    ),
    # A page that can be read as an answer has nothing of what was asked for.
    "LookupError": (
        "what answered was not AWS",
        "does a proxy, or the login page of a network, answer in its place?",
    ),
    "EndpointConnectionError": (
        "AWS cannot be reached",
        "is this machine online, and region_name a region of AWS? " + _RETRY,
    ),
    "ProxyConnectionError": ("the proxy cannot be reached", "HTTPS_PROXY and HTTP_PROXY name it"),
    "SSLError": (
        "no trusted TLS connection to AWS",
        "behind a proxy that inspects TLS, AWS_CA_BUNDLE names its certificates",
    ),
    "ConnectionError": ("no connection to AWS", _RETRY),
    "HTTPClientError": ("the connection to AWS failed", _RETRY),
    "PartialCredentialsError": ("the credentials are incomplete", _SETTINGS),
    "CredentialRetrievalError": ("there are no usable credentials", _LOG_IN),
    "TokenRetrievalError": ("there are no usable credentials", _LOG_IN),
    "NoAuthTokenError": ("there are no usable credentials", _LOG_IN),
    "SSOError": ("there are no usable credentials", _LOG_IN),
    "LoginError": ("there are no usable credentials", _LOG_IN),
    "RefreshWithMFAUnsupportedError": (
        "the credentials have expired, and need a code to be renewed",
        _LOG_IN,
    ),
    "MetadataRetrievalError": ("the role of this machine gave no credentials", _LOG_IN),
    "UnknownCredentialError": ("the AWS configuration is wrong", _SETTINGS),
    "ConfigNotFound": ("the AWS configuration is wrong", _SETTINGS),
    "ConfigParseError": ("the AWS configuration is wrong", _SETTINGS),
    "InvalidConfigError": ("the AWS configuration is wrong", _SETTINGS),
    "ProfileNotFound": ("the AWS configuration has no such profile", "aws configure list-profiles"),
    "MissingDependencyException": ("boto3 lacks a part that the credentials need", _LOG_IN),
    "BaseEndpointResolverError": ("there is no such region or service", "see region_name"),
    "EndpointProviderError": ("there is no such region or service", "see region_name"),
    "InvalidRegionError": ("there is no such region", "see region_name"),
    "UnknownRegionError": ("there is no such region", "see region_name"),
    "BotoCoreError": ("boto3 could not ask AWS", _SETTINGS),
}
# Errors after which AWS has not got the request: nothing came of it.
_NEVER_SENT = ("EndpointConnectionError", "ConnectTimeoutError", "ProxyConnectionError")
LONGEST = 300  # characters of what boto3 says: it may hold the whole of a page
_LOST = (
    "HTTPClientError", "ConnectionError", "IncompleteReadError", "ResponseParserError",
    "LookupError",
)  # fmt: skip


def code_of(error: BaseException) -> str:
    """Return the code of an error of AWS; empty, if it is another one."""
    response = getattr(error, "response", None)
    return str(response.get("Error", {}).get("Code", "")) if isinstance(response, dict) else ""


def status_of(error: BaseException) -> int:
    """Return the HTTP status of an answer that is an error; 0 where there was no answer."""
    response = getattr(error, "response", None)
    if not isinstance(response, dict):
        return 0
    return int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def is_lost(error: BaseException) -> bool:
    """Whether no answer came, or not the whole of one: asking again may help."""
    return not code_of(error) and any(name in _LOST for name in _names(error))


def is_unreadable(error: BaseException) -> bool:
    """Whether what came is not an answer of AWS, or not the whole of one; boto3 gives up then."""
    return any(name in ("ResponseParserError", "LookupError") for name in _names(error))


def may_have_happened(error: BaseException) -> bool:
    """Whether what was asked for may be done although it failed."""
    if code_of(error):
        return status_of(error) >= 500
    return is_lost(error) and not any(name in _NEVER_SENT for name in _names(error))


def reason(error: BaseException) -> str:
    """Return what AWS said, or why it could not be asked."""
    if code := code_of(error):
        response = getattr(error, "response", {})
        return f"{code}: {response['Error'].get('Message', '')}"
    detail = next(iter(str(error).strip().splitlines()), "")[:LONGEST] or type(error).__name__
    return f"{_words(error)[0]} ({detail})"


def explained(what: str, error: Exception) -> FlambeError:
    """Return an error for people: what failed, why, and what helps; one that is one, as it is."""
    if isinstance(error, FlambeError):
        return error
    if "NoCredentialsError" in _names(error):
        hint = "aws configure, aws sso login, or AWS_PROFILE"
        return ConfigError(Problem("AWS: there are no credentials", hint=hint))
    hint = _HINTS.get(code_of(error), "") if code_of(error) else _words(error)[1]
    return RunError(f"AWS: cannot {what}: {reason(error)}" + (f"\n  = {hint}" if hint else ""))


def is_of_aws(error: BaseException) -> bool:
    """Whether it is an error of AWS, or of the connection to it."""
    return bool(code_of(error)) or any(name in _WORDS for name in _names(error))


@contextlib.contextmanager
def translated(what: str) -> Iterator[None]:
    """Turn errors of AWS, and of the connection to it, into errors for people."""
    try:
        yield
    except FlambeError:
        raise
    except Exception as error:
        if not is_of_aws(error):
            raise
        raise explained(what, error) from error


def misconfigured(error: Exception) -> ConfigError:
    """Return the error of a boto3 that cannot begin: a profile, a region, a file of settings."""
    return ConfigError(Problem(f"AWS: {reason(error)}", hint=_words(error)[1]))


def missing_boto3() -> ConfigError:
    """Return the error of an installation without boto3."""
    return ConfigError(Problem("AWS clusters need boto3", hint=how_to_install("aws")))


def _names(error: BaseException) -> list[str]:
    return [each.__name__ for each in type(error).__mro__]


def _words(error: BaseException) -> tuple[str, str]:
    for name in _names(error):
        if name in _WORDS:
            return _WORDS[name]
    return _WORDS["BotoCoreError"]
