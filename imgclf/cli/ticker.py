"""Breaks the silence of another process, in one of its own: a call into TensorFlow may stop all threads of Python's.

`python ticker.py PID AGE_S SILENT_S AFTER_S` reads on stdin lines of the process PID, which has worked for AGE_S
seconds and written nothing for SILENT_S: each is what it does now, and an empty one says that it has just written
something itself. AFTER_S seconds after that, the last other line is written to stderr with the time, and again after
each further AFTER_S seconds. The ticker ends with the other process, however that ends.
"""

import contextlib
import os
import queue
import signal
import sys
import threading
import time

CHECK_S = 2.0


def tick(lines: "queue.SimpleQueue[bytes | None]", parent: int, begin: float, said: float, after_s: float) -> None:
    """Repeat the last of `lines` after each silence, until None comes or the other process is gone."""
    now = b""
    while os.name == "nt" or os.getppid() == parent:
        left_s = said + after_s - time.monotonic()
        try:
            line = lines.get(timeout=max(0.0, min(left_s, CHECK_S)))
        except queue.Empty:
            if left_s <= 0:
                said = time.monotonic()
                os.write(2, b"%b (%.0f s)\n" % (now, said - begin))
            continue
        if line is None:
            return
        if line:
            now = line
        else:
            said = time.monotonic()


def main() -> None:
    """Read stdin in a thread, since Windows cannot wait for a pipe with a limit."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the other process, which may take its time to end
    parent, (age_s, silent_s, after_s) = int(sys.argv[1]), map(float, sys.argv[2:])
    now, lines = time.monotonic(), queue.SimpleQueue[bytes | None]()

    def read() -> None:
        for line in sys.stdin.buffer:
            lines.put(line.rstrip(b"\n"))
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    with contextlib.suppress(OSError):  # nobody reads stderr any more
        tick(lines, parent, now - age_s, now - silent_s, after_s)
    os._exit(0)  # at once, whatever the thread waits for


if __name__ == "__main__":
    main()
