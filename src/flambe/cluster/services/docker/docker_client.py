"""Commands of Docker on one host, and why they cannot run."""

from __future__ import annotations

import enum
import re

from flambe.cluster.cluster_host import ClusterHost
from flambe.errors import CommandError, RemoteError
from flambe.remote import Result
from flambe.remote.transport import OnLine

# Seconds that an ordinary command, and a download, an installation or a container may take.
COMMAND_SECONDS, LONG_SECONDS = 60.0, 3600.0
VERSION = ("version", "--format={{.Server.Version}}")

_DENIED = re.compile("permission denied while trying to connect", re.IGNORECASE)
_DOWN = re.compile(
    "cannot connect to the docker daemon|failed to connect to the docker|error during connect|"
    "is the docker daemon running",
    re.IGNORECASE,
)
_NO_GPU = re.compile("could not select device driver.*gpu", re.DOTALL)
_GPU_HINT = "\n  = install nvidia-container-toolkit there, and restart Docker"


class DockerError(RemoteError):
    """Docker cannot be used on a host."""


class DockerProblem(enum.Enum):
    """Why Docker cannot be used."""

    MISSING = "not installed"
    DENIED = "not allowed"
    DOWN = "no daemon"

    @classmethod
    def of(cls, result: Result) -> DockerProblem | None:
        """Return why Docker cannot be used, if that is why a command of it failed."""
        if result.code == 127:
            return cls.MISSING
        if result.code and _DENIED.search(result.stderr):
            return cls.DENIED
        return cls.DOWN if result.code and _DOWN.search(result.stderr) else None

    def explain(self, user: str, stderr: str) -> str:
        """Return what is wrong, and the command that fixes it."""
        if self is DockerProblem.MISSING:
            return (
                "Docker is not installed: there is no program docker\n"
                "  = cluster.docker.install() installs it on Debian and Ubuntu; for others see "
                "https://docs.docker.com/engine/install/"
            )
        if self is DockerProblem.DENIED:
            return (
                f"the user {user} may not use Docker\n"
                f"  = sudo usermod -aG docker {user}   and log in again; cluster.docker.install() "
                "does both"
            )
        return (
            f"Docker's daemon does not answer\n  | {stderr.strip()}\n"
            "  = sudo systemctl start docker"
        )


class DockerClient:
    """Runs commands of Docker on one host.

    Parameters
    ----------
    host
        The host.
    """

    def __init__(self, host: ClusterHost) -> None:
        self.host = host

    def run(
        self,
        *arguments: str,
        deadline: float = COMMAND_SECONDS,
        on_line: OnLine | None = None,
        repeat: bool = False,
    ) -> Result:
        """Run a command of Docker, and return its result.

        Raises
        ------
        CommandError
            If it fails.
        DockerError
            If Docker cannot be used.
        """
        return checked(self.attempt(*arguments, deadline=deadline, on_line=on_line, repeat=repeat))

    def attempt(
        self,
        *arguments: str,
        deadline: float = COMMAND_SECONDS,
        on_line: OnLine | None = None,
        repeat: bool = False,
    ) -> Result:
        """Run a command of Docker that may fail, and return its result.

        Raises
        ------
        DockerError
            If Docker cannot be used.
        """
        argv = ["docker", *arguments]
        return self.usable(
            self.host.run(argv, deadline=deadline, take=on_line, repeat=repeat, check=False)
        )

    def usable(self, result: Result) -> Result:
        """Return the result of a command of Docker.

        Raises
        ------
        DockerError
            If it failed because Docker cannot be used.
        """
        if problem := DockerProblem.of(result):
            text = problem.explain(self.host.machine.user, result.stderr)
            raise DockerError(self.host.name, text)
        return result

    def diagnose(self) -> DockerProblem | None:
        """Return why Docker cannot be used, if it cannot."""
        argv = ["docker", *VERSION]
        return DockerProblem.of(self.host.run(argv, check=False, repeat=True))


def checked(result: Result) -> Result:
    """Return a result.

    Raises
    ------
    CommandError
        If the exit code is not 0; with a hint, where the cause is a common one.
    """
    try:
        return result.checked()
    except CommandError as error:
        if _NO_GPU.search(error.stderr):
            error.message += _GPU_HINT
        raise
