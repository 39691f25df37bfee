#!/usr/bin/python3 -I
"""``shutdown``, ``poweroff``, ``reboot``, ``halt`` and ``systemctl`` of a guest, which has no systemd.

They end what runs, and then the host itself, by reboot(2).
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time

POWER_OFF, RESTART = 0x4321FEDC, 0x1234567
PENDING = "/run/shutdown.pid"


def end(how: int) -> None:
    """Let programs end, and end the host."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.kill(-1, signal.SIGTERM)
    time.sleep(0.2)
    ctypes.CDLL(None).reboot(how)
    sys.exit("this needs root")


def cancel() -> None:
    try:
        with open(PENDING) as file:
            os.kill(int(file.read()), signal.SIGKILL)
        os.remove(PENDING)
    except (OSError, ValueError):
        pass


def shutdown(words: list[str]) -> None:
    flags = [word for word in words if word.startswith("-")]
    others = [word for word in words if not word.startswith("-")]
    if "-c" in flags:
        cancel()
        return
    how = RESTART if "-r" in flags else POWER_OFF
    when = others[0] if others else "+1"
    minutes = 0.0 if when == "now" else float(when.lstrip("+"))
    if not minutes:
        end(how)
    cancel()
    waiting = subprocess.Popen(
        [sys.executable, "-I", __file__, "--wait", str(minutes * 60), str(how)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    with open(PENDING, "w") as file:
        file.write(str(waiting.pid))


def main() -> int:
    name, words = os.path.basename(sys.argv[0]), sys.argv[1:]
    if name == "systemctl":
        verbs = [word for word in words if not word.startswith("-")]
        name = verbs[0] if verbs else ""
        if name not in ("poweroff", "reboot", "halt"):
            print(
                "System has not been booted with systemd as init system (PID 1). Can't operate.",
                file=sys.stderr,
            )
            return 1
        words = []
    if words[:1] == ["--wait"]:
        time.sleep(float(words[1]))
        end(int(words[2]))
    if os.geteuid() != 0:
        print("this needs root", file=sys.stderr)
        return 1
    if name == "shutdown":
        shutdown(words)
    elif name == "poweroff":
        end(POWER_OFF)
    elif name == "reboot":
        end(RESTART)
    # Halting stops the processor of an instance, which goes on being one that runs.
    return 0


sys.exit(main())
