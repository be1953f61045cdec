"""The loop that agents share: wait for an event or a deadline, then bring the kernel to the desired state."""

import asyncio
import contextlib
import signal
from collections.abc import Mapping
from typing import Any

from agents.kernel.control import ControlServer, Handler
from agents.kernel.eventlog import EventLog
from agents.kernel.netlink import Event, Kernel, KernelError

RETRY_FIRST_S, RETRY_LAST_S = 0.1, 5.0


class Reconciler:
    """Runs until SIGTERM or SIGINT. Subclasses give commands, deadlines and `reconcile`.

    Nothing is polled: a failed change is tried again after RETRY_FIRST_S, then ever later up to RETRY_LAST_S.
    """

    def __init__(self, control_path: str, log: EventLog) -> None:
        self.log = log
        self.kernel = Kernel(self._on_kernel)
        self.control = ControlServer(control_path, self.commands())
        self.inbox: list[Any] = []
        self.failures: dict[str, str] = {}
        self.lock = asyncio.Lock()
        self._wake = asyncio.Event()
        self._stopping = False
        self._retry_s = 0.0
        self._retry_at_s: float | None = None

    # -- for subclasses -----------------------------------------------------------------------------------------------
    def commands(self) -> Mapping[str, Handler]:
        """Control commands by name; "status" must be among them."""
        raise NotImplementedError

    def deadlines_s(self) -> list[float | None]:
        """When `reconcile` shall be called even if nothing happens."""
        return []

    async def reconcile(self) -> None:
        """Handle the inbox, compare, change. Called with the lock held; records refused changes in `failures`."""
        raise NotImplementedError

    async def set_up(self) -> None:
        """Before the first comparison; the control socket does not exist yet."""

    async def tear_down(self) -> None:
        """After the last one."""

    # -- the loop -----------------------------------------------------------------------------------------------------
    async def run(self) -> None:
        """Work until told to stop."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        await self.kernel.start()
        await self.set_up()
        await self.control.start()
        self._wake.set()
        try:
            while not self._stopping:
                await self._wait()
                async with self.lock:
                    await self.step()
        finally:
            self.log.write("stopped")
            await self.control.close()
            await self.tear_down()
            self.kernel.close()

    async def step(self) -> None:
        """One comparison now (with the lock held), and the plan for the next one if a change was refused."""
        self._wake.clear()
        if self._retry_at_s is not None and self._retry_at_s <= self.now_s():
            self._retry_at_s = None
        self.failures = {}
        await self.reconcile()
        if not self.failures:
            self._retry_s, self._retry_at_s = 0.0, None
        elif self._retry_at_s is None:
            self._retry_s = min(max(2 * self._retry_s, RETRY_FIRST_S), RETRY_LAST_S)
            self._retry_at_s = self.now_s() + self._retry_s

    async def attempt(self, event: str, what: dict[str, Any], work: Any, harmless: set[int]) -> bool:
        """Await a change and log it; a refusal is recorded, and logged unless its errno is harmless."""
        try:
            await work
        except KernelError as error:
            self.failures[str(what)] = str(error)
            if error.errno not in harmless:
                self.log.write("failed", what=str(error))
            return False
        self.log.write(event, **what)
        return True

    @staticmethod
    def now_s() -> float:
        """Monotonic time."""
        return asyncio.get_running_loop().time()

    def put(self, event: Any) -> None:
        """Something happened."""
        self.inbox.append(event)
        self._wake.set()

    def _on_kernel(self, events: list[Event]) -> None:
        self.inbox += events
        self._wake.set()

    def _stop(self) -> None:
        self._stopping = True
        self._wake.set()

    async def _wait(self) -> None:
        times = [time_s for time_s in [*self.deadlines_s(), self._retry_at_s] if time_s is not None]
        timeout_s = max(0.0, min(times) - self.now_s()) if times else None
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), timeout_s)
