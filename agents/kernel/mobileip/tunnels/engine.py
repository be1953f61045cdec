"""The thread that moves packets: it waits for descriptors and calls their handlers, and nothing else touches what they use.

The agent's decisions and its waiting for the disk stay in the main thread; packets go on meanwhile.
"""

import contextlib
import os
import select
import threading
import traceback
from collections import deque
from collections.abc import Callable
from typing import Final, TypeVar

T = TypeVar("T")
CALL_TIMEOUT_S: Final = 10.0


class Engine:
    """Handlers of descriptors in a thread of their own. `on_defect` gets the error of a handler, in that thread."""

    def __init__(self, on_defect: Callable[[Exception, str], None]) -> None:
        self._on_defect = on_defect
        self._epoll = select.epoll()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll.register(self._wake, select.EPOLLIN)
        self._handlers: dict[int, Callable[[], None]] = {}
        self._calls: deque[Callable[[], None]] = deque()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="tunnels", daemon=True)
        self._thread.start()

    def call(self, work: Callable[[], T]) -> T:
        """Run `work` between two packets; its result or error. Raises TimeoutError when the thread does not answer."""
        done = threading.Event()
        outcome: list[T] = []
        failed: list[BaseException] = []

        def perform() -> None:
            try:
                outcome.append(work())
            except Exception as error:
                failed.append(error)
            done.set()

        self._calls.append(perform)
        os.eventfd_write(self._wake, 1)
        if not done.wait(CALL_TIMEOUT_S):
            raise TimeoutError("the tunnels' thread does not answer")
        if failed:
            raise failed[0]
        return outcome[0]

    def watch(self, descriptor: int, handler: Callable[[], None]) -> None:
        """`handler` is called when something can be read. Only inside `call`."""
        self._handlers[descriptor] = handler
        self._epoll.register(descriptor, select.EPOLLIN)

    def forget(self, descriptor: int) -> None:
        """Not any more. Only inside `call`, before the descriptor is closed."""
        if self._handlers.pop(descriptor, None) is not None:
            with contextlib.suppress(OSError):
                self._epoll.unregister(descriptor)

    def close(self) -> None:
        """End the thread."""
        self._stopping = True
        os.eventfd_write(self._wake, 1)
        self._thread.join(CALL_TIMEOUT_S)
        self._epoll.close()
        os.close(self._wake)

    def _run(self) -> None:
        while not self._stopping:
            for descriptor, _events in self._epoll.poll():
                handler = self._handlers.get(descriptor)
                if descriptor == self._wake:
                    self._perform_calls()
                elif handler is not None:
                    try:
                        handler()
                    except Exception as error:
                        last = traceback.extract_tb(error.__traceback__)[-1]
                        self._on_defect(error, f"{os.path.basename(last.filename)}:{last.lineno}")

    def _perform_calls(self) -> None:
        os.eventfd_read(self._wake)
        while self._calls:
            self._calls.popleft()()
