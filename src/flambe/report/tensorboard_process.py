"""TensorBoard as a process that only its user reaches: ``python -m flambe.report.tensorboard``.

TensorBoard asks for no password and takes any ``Host``, and so does the server that reads event
files for it (``tensorboard-data-server``, gRPC at a port of the loopback). So TensorBoard listens
on a Unix socket in a folder that only its user may enter, and is in its own network
namespace. Where the system does not allow that, TensorBoard reads event files itself, which needs
no port and takes longer for large runs.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import fcntl
import os
import shutil
import socket
import struct
import sys
import threading
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from flambe.report.parent import end_with

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

_NEW_USER, _NEW_NETWORK = 0x10000000, 0x40000000  # CLONE_NEWUSER, CLONE_NEWNET: unshare(2)
_SET_FLAGS, _UP = 0x8914, 0x41  # SIOCSIFFLAGS, IFF_UP | IFF_RUNNING: netdevice(7)


def main() -> None:
    """Run TensorBoard until the process that started it is gone."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--socket", type=Path, required=True)
    parser.add_argument("--logdir", required=True)
    parser.add_argument("--path_prefix", required=True)
    options = parser.parse_args()
    # Before anything starts a thread: a process of several cannot change its user namespace.
    is_alone = _enter_network_of_its_own()
    end_with(options.parent, partial(shutil.rmtree, options.socket.parent, ignore_errors=True))

    from tensorboard import default
    from tensorboard.program import TensorBoard

    # Plugins of other packages are left out; one of them, the projector, sends any file that a
    # folder of events names.
    program = TensorBoard(
        default.get_static_plugins(), server_class=partial(_Server, options.socket)
    )
    program.configure(
        logdir=options.logdir,
        path_prefix=options.path_prefix,
        load_fast="auto" if is_alone else "false",
        reload_interval=5.0,
    )
    # Unlike main(), this writes nothing to /tmp/.tensorboard-info, where other users put links.
    program.launch()
    threading.Event().wait()


class _Server:
    """What TensorBoard calls to be served (``TensorBoardServer``): on a Unix socket."""

    def __init__(self, path: Path, app: WSGIApplication, flags: object) -> None:
        from werkzeug.serving import make_server

        self._server = make_server(f"unix://{path}", 0, app, threaded=True)

    def serve_forever(self) -> None:
        """Answer requests."""
        self._server.serve_forever()

    def get_url(self) -> str:
        """Return the address."""
        return self._server.host


def _enter_network_of_its_own() -> bool:
    """Leave the network of the machine for an empty one; return whether that is possible."""
    if sys.platform != "linux":
        return False
    user, group = os.getuid(), os.getgid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_NEW_NETWORK) != 0:  # root may; others, in a user namespace
        if libc.unshare(_NEW_USER | _NEW_NETWORK) != 0:
            return False
        with contextlib.suppress(OSError):
            Path("/proc/self/setgroups").write_text("deny")
            Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
            Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    try:
        with socket.socket() as any_socket:
            fcntl.ioctl(any_socket, _SET_FLAGS, struct.pack("16sH14x", b"lo", _UP))
    except OSError:
        return False
    return True
