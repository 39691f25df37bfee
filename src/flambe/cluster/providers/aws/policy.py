"""The IAM policy with the fewest permissions that a user of AWSCluster needs.

It is ``iam_policy.json``. Actions without a resource that could be named are in the statement
``Describe``; the tag ``Purpose: flambe`` limits all others to what flambe created. See
https://docs.aws.amazon.com/service-authorization/
"""

from __future__ import annotations

from importlib import resources


def policy_json() -> str:
    """Return the policy."""
    return resources.files(__package__).joinpath("iam_policy.json").read_text(encoding="utf-8")
