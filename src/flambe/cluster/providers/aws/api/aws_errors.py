"""Why a call to AWS failed: what AWS refused, or why it could not be reached."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from flambe.errors import ConfigError, FlambeError, Problem, RunError, how_to_install

_LOG_IN = "log in again: aws sso login, or aws configure; aws sts get-caller-identity tries it"
_SETTINGS = "see ~/.aws/config and the variables AWS_..., and: aws configure list"
_RETRY = "run the same command again when AWS can be reached"
_NOT_ALLOWED = "the policy of this user does not allow that action: see flambe aws policy"

_HINTS = {
    "ExpiredToken": "log in again: aws sso login, or renew the keys",
    "ExpiredTokenException": "log in again: aws sso login, or renew the keys",
    "RequestExpired": "log in again, and check the clock of this machine",
    "AuthFailure": "check the access keys, and the clock of this machine",
    "InvalidClientTokenId": "check the access keys",
    "UnrecognizedClientException": "check the access keys",
    "UnauthorizedOperation": _NOT_ALLOWED,
    "AccessDenied": _NOT_ALLOWED,
    "AccessDeniedException": _NOT_ALLOWED,
    "InstanceLimitExceeded": "ask AWS for a higher limit, or use fewer instances",
    "VcpuLimitExceeded": "ask AWS for a higher quota of this type: Service Quotas, EC2",
    "InvalidKeyPair.NotFound": "key_name is the name of a key pair of EC2 in this region",
    "InvalidSubnetID.NotFound": "subnet_id is a subnet of this region",
    "InvalidGroup.NotFound": "security_group is the id of a group in the VPC of the subnet",
    "InvalidAMIID.NotFound": "each region has its own image ids",
    "TagLimitExceeded": "an instance has 50 tags at most, those of flambe included",
}

# What an exception of boto3 means, and what helps, by the names of its class and its bases.
_EXPLANATIONS = {
    "ReadTimeoutError": ("AWS did not answer in time", _RETRY),
    "ConnectTimeoutError": ("no connection to AWS in time", _RETRY),
    "ConnectionClosedError": ("the connection was closed before AWS answered", _RETRY),
    "ResponseStreamingError": ("the connection was closed in the middle of the answer", _RETRY),
    "IncompleteReadError": ("the connection was closed in the middle of the answer", _RETRY),
    "ResponseParserError": (
        "what answered was not AWS, or its answer was cut off",
        "a proxy, or the login page of a network, may have answered in its place",
    ),
    # A page that boto3 can parse as an answer has none of its fields.
    "LookupError": (
        "what answered was not AWS",
        "a proxy, or the login page of a network, may have answered in its place",
    ),
    "EndpointConnectionError": (
        "AWS cannot be reached",
        "check that this machine is online, and region_name a region of AWS; " + _RETRY,
    ),
    "ProxyConnectionError": (
        "the proxy cannot be reached",
        "it is set by HTTPS_PROXY and HTTP_PROXY",
    ),
    "SSLError": (
        "no trusted TLS connection to AWS",
        "behind a proxy that inspects TLS, set AWS_CA_BUNDLE to its certificates",
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
        "the credentials have expired, and renewing them needs an MFA code",
        _LOG_IN,
    ),
    "MetadataRetrievalError": ("the role of this machine gave no credentials", _LOG_IN),
    "UnknownCredentialError": ("the AWS configuration is wrong", _SETTINGS),
    "ConfigNotFound": ("the AWS configuration is wrong", _SETTINGS),
    "ConfigParseError": ("the AWS configuration is wrong", _SETTINGS),
    "InvalidConfigError": ("the AWS configuration is wrong", _SETTINGS),
    "ProfileNotFound": ("the AWS configuration has no such profile", "aws configure list-profiles"),
    "MissingDependencyException": ("boto3 needs another package for these credentials", _LOG_IN),
    "BaseEndpointResolverError": ("there is no such region or service", "see region_name"),
    "EndpointProviderError": ("there is no such region or service", "see region_name"),
    "InvalidRegionError": ("there is no such region", "see region_name"),
    "UnknownRegionError": ("there is no such region", "see region_name"),
    "BotoCoreError": ("boto3 could not ask AWS", _SETTINGS),
}
# Errors after which AWS never received the request.
_NEVER_SENT = ("EndpointConnectionError", "ConnectTimeoutError", "ProxyConnectionError")
LONGEST_DETAIL = 300  # characters of a message of boto3, which may hold a whole page
_LOST = (
    "HTTPClientError", "ConnectionError", "IncompleteReadError", "ResponseParserError",
    "LookupError",
)  # fmt: skip


def code_of(error: BaseException) -> str:
    """Return the code of an error that AWS answered; empty for any other error."""
    response = getattr(error, "response", None)
    return str(response.get("Error", {}).get("Code", "")) if isinstance(response, dict) else ""


def status_of(error: BaseException) -> int:
    """Return the HTTP status of an error that AWS answered; 0 for any other error."""
    response = getattr(error, "response", None)
    if not isinstance(response, dict):
        return 0
    return int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def is_lost(error: BaseException) -> bool:
    """Whether the answer did not arrive completely: a retry may help."""
    return not code_of(error) and any(name in _LOST for name in _class_names(error))


def is_unreadable(error: BaseException) -> bool:
    """Whether the answer is not one of AWS, or was cut off; boto3 does not retry then."""
    return any(name in ("ResponseParserError", "LookupError") for name in _class_names(error))


def may_have_happened(error: BaseException) -> bool:
    """Whether a call may have taken effect although it failed."""
    if code_of(error):
        return status_of(error) >= 500
    return is_lost(error) and not any(name in _NEVER_SENT for name in _class_names(error))


def reason(error: BaseException) -> str:
    """Return what AWS answered, or why it could not be reached."""
    if code := code_of(error):
        response = getattr(error, "response", {})
        return f"{code}: {response['Error'].get('Message', '')}"
    detail = (
        next(iter(str(error).strip().splitlines()), "")[:LONGEST_DETAIL] or type(error).__name__
    )
    return f"{_explanation(error)[0]} ({detail})"


def explain(action: str, error: Exception) -> FlambeError:
    """Return an error that says what failed, why, and what helps; a FlambeError is returned as is.

    Parameters
    ----------
    action
        What failed, as it follows "cannot": ``find instances``.
    error
        What was raised.
    """
    if isinstance(error, FlambeError):
        return error
    if "NoCredentialsError" in _class_names(error):
        hint = "aws configure, aws sso login, or AWS_PROFILE"
        return ConfigError(Problem("AWS: there are no credentials", hint=hint))
    hint = _HINTS.get(code_of(error), "") if code_of(error) else _explanation(error)[1]
    return RunError(f"AWS: cannot {action}: {reason(error)}" + (f"\n  = {hint}" if hint else ""))


def is_aws_error(error: BaseException) -> bool:
    """Whether an error comes from AWS, or from the connection to it."""
    return bool(code_of(error)) or any(name in _EXPLANATIONS for name in _class_names(error))


@contextlib.contextmanager
def translate_errors(action: str) -> Iterator[None]:
    """Raise errors of AWS, and of the connection to it, as :func:`explain` words them."""
    try:
        yield
    except FlambeError:
        raise
    except Exception as error:
        if not is_aws_error(error):
            raise
        raise explain(action, error) from error


def configuration_error(error: Exception) -> ConfigError:
    """Return the error of a boto3 that cannot start: a wrong profile, region or settings file."""
    return ConfigError(Problem(f"AWS: {reason(error)}", hint=_explanation(error)[1]))


def missing_boto3_error() -> ConfigError:
    """Return the error of an installation without boto3."""
    return ConfigError(Problem("AWS clusters need boto3", hint=how_to_install("aws")))


def _class_names(error: BaseException) -> list[str]:
    return [cls.__name__ for cls in type(error).__mro__]


def _explanation(error: BaseException) -> tuple[str, str]:
    for name in _class_names(error):
        if name in _EXPLANATIONS:
            return _EXPLANATIONS[name]
    return _EXPLANATIONS["BotoCoreError"]
