"""A bucket for tests: a server of its own that speaks the protocol of S3."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import boto3

from tests.experiment.lab import until

NAME = "orchard"
SERVER = "import sys; from moto.server import main; main(sys.argv[1:])"


class Bucket:
    """A server with one bucket.

    Parameters
    ----------
    log
        Where the server writes what it was asked.
    host
        The address that it listens on.
    """

    def __init__(self, log: Path, host: str = "127.0.0.1") -> None:
        self.log = log
        with socket.socket() as free:
            free.bind((host, 0))
            port = free.getsockname()[1]
        self.address = f"http://{host}:{port}"
        with open(log, "wb") as stream:
            self._process = subprocess.Popen(
                [sys.executable, "-c", SERVER, "-H", host, "-p", str(port)],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                env={**os.environ, "NO_COLOR": "1"},
                start_new_session=True,
            )
        until(lambda: _answers(host, port), "the server of the bucket answers")
        self.client: Any = boto3.client(
            "s3",
            endpoint_url=self.address,
            region_name="us-east-1",
            aws_access_key_id="test",
            aws_secret_access_key="test",
        )
        self.client.create_bucket(Bucket=NAME)

    @property
    def variables(self) -> dict[str, str]:
        """What a program needs to use it, in its environment."""
        return {
            "AWS_ENDPOINT_URL": self.address,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def keys(self, prefix: str) -> set[str]:
        """Return the names of all objects below a prefix; those that stand for folders left out."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=NAME, Prefix=prefix)
        found = [item["Key"] for page in pages for item in page.get("Contents", ())]
        return {key.removeprefix(prefix) for key in found if not key.endswith("/")}

    def read(self, key: str) -> bytes:
        """Return an object."""
        return bytes(self.client.get_object(Bucket=NAME, Key=key)["Body"].read())

    def put(self, key: str, content: bytes) -> None:
        """Write an object."""
        self.client.put_object(Bucket=NAME, Key=key, Body=content)

    def hang(self) -> None:
        """Let it answer nobody."""
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it answer again."""
        self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """End the server; its objects are gone with it."""
        self.client.close()
        self._process.kill()
        self._process.wait()


def _answers(host: str, port: int) -> bool:
    with socket.socket() as caller:
        return caller.connect_ex((host, port)) == 0
