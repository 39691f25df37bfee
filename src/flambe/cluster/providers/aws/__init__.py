"""Clusters on Amazon EC2."""

from flambe.cluster.providers.aws.aws_cluster import AWSCluster

__all__ = ["AWSCluster"]
