"""The last resort on the way out: a process that was told to end, ends.

An interpreter that exits waits for every thread that is not a daemon, and a loop that hangs never
gets to its own deadline. systemd would kill such a process after TimeoutStopSec=, as a failure.
"""

import faulthandler
import logging
import math
import os
import threading
import time

__all__ = ["ExitGuard"]

logger = logging.getLogger("granian")

_TELL_SECONDS = 1.0


class ExitGuard:
    """Ends the process with `code` when the time given to `start` is over."""

    def __init__(self) -> None:
        self.code = 0
        self._deadline = math.inf

    def start(self, seconds: float) -> None:
        """Starts a countdown. Of several the shortest counts; a later end changes nothing."""
        deadline = time.monotonic() + seconds
        if deadline < self._deadline:
            self._deadline = deadline
            over = threading.Event()
            # Apart, because what hangs may hold a lock of the log, or be a log that nobody reads.
            # And now, because an interpreter on its way out starts no thread any more.
            teller = threading.Thread(target=_tell, args=(over,), name="exit-log", daemon=True)
            teller.start()
            threading.Thread(
                target=self._wait, args=(deadline, over, teller), name="exit-guard", daemon=True
            ).start()

    def _wait(self, deadline: float, over: threading.Event, teller: threading.Thread) -> None:
        time.sleep(max(deadline - time.monotonic(), 0))
        over.set()
        teller.join(_TELL_SECONDS)
        os._exit(self.code)


def _tell(over: threading.Event) -> None:
    over.wait()
    names = [
        thread.name
        for thread in threading.enumerate()
        if not thread.daemon and thread is not threading.main_thread()
    ]
    what = f"threads still run: {', '.join(names)}" if names else "the main thread is not done"
    logger.error("the time to stop is over, and %s; ending the process", what)
    if not names:
        faulthandler.dump_traceback(all_threads=True)
    logging.shutdown()
