"""Kill a process at each of its operations on files, one after another, as a power cut or `kill -9` would."""

import os
import sys
from collections.abc import Callable, Iterator

EVENTS = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.truncate", "shutil.rmtree")


def at_each_operation(work: Callable[[], object], *, most: int = 500) -> Iterator[int]:
    """Do the work in a forked process that ends just before its first, second, third... operation on a file.

    Nothing is flushed or tidied up on the way. The last attempt, which is not yielded, ends by itself.

    Yields:
        The number of the operation at which a process was killed, for the test to look at what is left.
    """
    for number in range(1, most + 1):
        child = os.fork()
        if not child:
            _work(work, number)
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        assert code in (0, KILLED), f"operation {number}: the work itself failed with {code}"
        if code == 0:
            assert number > 1, "the work did nothing"
            return
        yield number
    raise AssertionError(f"still not finished after {most} operations")


KILLED = 42


def _work(work: Callable[[], object], number: int) -> None:
    count = 0

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal count
        if event in EVENTS and not (event == "open" and arguments[1] in ("r", "rb")):
            count += 1
            if count == number:
                os._exit(KILLED)

    try:
        import filelock  # noqa: F401  (no operation of the work)

        sys.addaudithook(hook)
        work()
    except BaseException as error:
        print(repr(error), file=sys.stderr, flush=True)
        os._exit(1)
    os._exit(0)
