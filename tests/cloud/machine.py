"""The life of one instance: pending, running, stopped, terminated; with a host of its own, or none."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tests.cloud import models

if TYPE_CHECKING:
    from tests.cloud.faults import Faults
    from tests.cloud.guest import Guest

TICK = 0.05
SHUTDOWN = ("Client.InstanceInitiatedShutdown", "Instance initiated shutdown")
ASKED = ("Client.UserInitiatedShutdown", "User initiated shutdown")
BROKE = ("Server.InternalError", "Internal error on launch")
SPOT = ("Server.SpotInstanceTermination", "Spot instance termination")


class Machine:
    """One instance. What is asked of it is queued, and done by a thread of its own.

    https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ec2-instance-lifecycle.html
    """

    def __init__(
        self,
        model: Any,
        *,
        lock: threading.RLock,
        faults: Faults,
        address: Callable[[], str],
        guest: Callable[[Machine], Guest] | None,
    ) -> None:
        self.model = model
        self.id = str(model.id)
        self.region = str(model.region_name)
        self.guest: Guest | None = None
        self.launched, self._lag = time.monotonic(), faults.lag
        self.running_at = 0.0
        self.interruption: dict[str, str] | None = None  # what a spot instance is told before
        self.console = ""  # what is left of it, when the host is gone
        self.failure: BaseException | None = None  # of this equipment, not of the instance
        self._interrupted_at = 0.0
        self._over = False
        self._lock = lock
        self._faults = faults
        self._address = address
        self._make = guest
        self._dies = faults.dies()
        self._delay = faults.boot_seconds()
        self._asked: queue.Queue[tuple[str, tuple[str, str]]] = queue.Queue()
        self._give_address()
        models.become(model, "pending")
        self._thread = threading.Thread(target=self._live, name=self.id, daemon=True)
        self._thread.start()

    @property
    def state(self) -> str:
        return str(self.model.state)

    @property
    def hidden(self) -> bool:
        """Tell whether calls do not see it yet."""
        return time.monotonic() < self.launched + min(self._lag, self._faults.lag)

    def ask(self, what: str, why: tuple[str, str] = ASKED) -> None:
        """Ask for ``start``, ``stop``, ``reboot`` or ``terminate``."""
        self._asked.put((what, why))

    def end(self) -> None:
        """End its thread and its host, whatever its state."""
        self._asked.put(("end", ASKED))
        self._thread.join(60)
        if self.guest is not None:
            self.guest.remove()

    def leave(self, what: str, why: tuple[str, str]) -> None:
        """Begin to ``stop`` or to ``terminate``, as a call would have it."""
        self._leave({"stop": "stopping", "terminate": "shutting-down"}[what], why)
        self.ask(what, why)

    # -- its thread -------------------------------------------------------------------------------

    def _live(self) -> None:
        try:
            self._boot()
            while not self._over:
                try:
                    what, why = self._asked.get(timeout=TICK)
                except queue.Empty:
                    self._look()
                    continue
                if what == "end":
                    return
                # Its state is not to be asked for: moto's own moves ahead of it, within a call.
                self._do(what, why)
        except BaseException as error:
            self.failure = error
            with self._lock:
                models.because(self.model, "Server.InternalError", f"the test cloud: {error}")
                models.become(self.model, "terminated")
            raise

    def _do(self, what: str, why: tuple[str, str]) -> None:
        if what == "stop":
            self._stop(why)
        elif what == "terminate":
            self._terminate(why)
        elif what == "reboot":
            self._reboot()
        else:
            self._boot()

    def _boot(self) -> None:
        """Wait as long as it is pending, then run; what is asked for meanwhile comes first."""
        deadline = time.monotonic() + self._delay
        while time.monotonic() < deadline and self._asked.empty():
            time.sleep(TICK / 5)
        if not self._asked.empty():
            return  # it was terminated while it was pending
        if self._dies:
            self._dies = False
            self._terminate(BROKE)
            return
        if self._make is not None:
            if self.guest is None:
                self.guest = self._make(self)
                self.guest.install()
            else:
                self.guest.boot()
        with self._lock:
            if self.state == "pending":
                self.running_at = time.monotonic()
                models.become(self.model, "running")

    def _look(self) -> None:
        """See whether the host has ended, and do what the instance is to do then.

        https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/Using_ChangingInstanceInitiatedShutdownBehavior.html
        """
        if self._interrupted_at and time.monotonic() > self._interrupted_at:
            self._terminate(SPOT)
        if self.guest is None or self.state != "running":
            return
        ended = self.guest.ended()
        if ended == "reboot":
            self.guest.boot()
        elif ended == "poweroff":
            self._power_off(SHUTDOWN)

    def _power_off(self, why: tuple[str, str]) -> None:
        if self.model.instance_initiated_shutdown_behavior == "terminate":
            self._leave("shutting-down", why)
            self._terminate(why)
        else:
            self._leave("stopping", why)
            self._stop(why)

    def _leave(self, state: str, why: tuple[str, str]) -> None:
        """Let moto do what an API call would have it do."""
        with self._lock:
            self.model.terminate() if state == "shutting-down" else self.model.stop()
            models.let_go(self.model)
            models.because(self.model, *why)
            models.become(self.model, state)

    def _stop(self, why: tuple[str, str]) -> None:
        """Stop it: the disk, the private address and the tags stay, the public address goes.

        https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/how-ec2-instance-stop-start-works.html
        """
        if self.guest is not None:
            self.guest.shut_down()
        with self._lock:
            models.because(self.model, *why)
            models.become(self.model, "stopped")

    def _reboot(self) -> None:
        """Reboot it: all that is on the disk, and both addresses, stay.

        https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ec2-instance-reboot.html
        """
        if self.guest is not None and self.state == "running":
            self.guest.shut_down()
            self.guest.boot()

    def _terminate(self, why: tuple[str, str]) -> None:
        """Terminate it: nothing is left but its entry, and for a while its console output.

        https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/how-ec2-instance-termination-works.html
        """
        if self.state not in ("shutting-down", "terminated"):
            self._leave("shutting-down", why)
        if self.guest is not None:
            self.guest.shut_down()
            self.console = self.guest.console()
            self.guest.remove()
        self._over = True
        with self._lock:
            models.because(self.model, *why)
            models.become(self.model, "terminated")

    def interrupt(self, seconds: float, notice: str) -> None:
        """Interrupt a spot instance: it is told when, and is terminated then.

        https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html
        """
        if self.model.lifecycle != "spot":
            raise ValueError(f"{self.id} is no spot instance: only those are interrupted")
        self.interruption = {"action": "terminate", "time": notice}
        self._interrupted_at = time.monotonic() + seconds

    # -- what calls do ----------------------------------------------------------------------------

    def restart(self) -> None:
        """Start again what was stopped: pending anew, and another public address."""
        self._delay = self._faults.boot_seconds()
        self._give_address()
        models.become(self.model, "pending")
        self.ask("start")

    def _give_address(self) -> None:
        """Give it a public address, if it is to have one.

        https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/using-instance-addressing.html#concepts-public-addresses
        """
        card = self.model.nics[0]
        if card.public_ip is not None:
            card.public_ip = self._address()

    @property
    def private_address(self) -> str:
        return str(self.model.nics[0].private_ip_address)

    @property
    def public_address(self) -> str:
        return str(self.model.nics[0].public_ip or "")
