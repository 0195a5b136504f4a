"""Process items in several threads, in order, with few of them in memory."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class _Raised:
    """Stands in the place of a result: raised there. None is the end of all items."""

    error: BaseException | None


def run(items: Iterator[T], work: Callable[[list[T]], list[R]], *, workers: int, batch: int, ahead: int) -> Iterator[R]:
    """Give each item's result in the items' order.

    Items are taken in a thread of their own, so a list that comes slowly is answered as it comes: a worker takes what
    is there, up to `batch` items, and waits for no more.

    Args:
        work: makes a list of results of a list of items. It is called by several threads.
        ahead: so many items at most are taken before the first of their results is asked for.

    Raises:
        Exception: what `items` or `work` raises, after the results that come before it.
    """
    todo: SimpleQueue[tuple[int, T] | None] = SimpleQueue()
    done: dict[int, R | _Raised] = {}
    arrived = threading.Condition()
    room = threading.Semaphore(ahead)
    stopped = threading.Event()

    def deliver(results: dict[int, Any]) -> None:
        with arrived:
            done.update(results)
            arrived.notify()

    def feed() -> None:
        place = 0
        try:
            while room.acquire() and not stopped.is_set():
                todo.put((place, next(items)))
                place += 1
        except StopIteration:
            deliver({place: _Raised(None)})
        except BaseException as error:
            deliver({place: _Raised(error)})

    def labour() -> None:
        while not stopped.is_set() and (first := todo.get()) is not None:
            taken = [first]
            try:
                while len(taken) < batch and (another := todo.get_nowait()) is not None:
                    taken.append(another)
            except Empty:
                pass
            places = [place for place, _ in taken]
            try:
                deliver(dict(zip(places, work([item for _, item in taken]), strict=True)))
            except BaseException as error:
                deliver(dict.fromkeys(places, _Raised(error)))

    # The feeder may wait for ever for what somebody types, and must not keep the process from ending.
    threading.Thread(target=feed, name="sources", daemon=True).start()
    threads = [threading.Thread(target=labour, name=f"predict-{number}", daemon=True) for number in range(workers)]
    for thread in threads:
        thread.start()
    try:
        place = 0
        while True:
            with arrived:
                while place not in done:
                    arrived.wait()
                result = done.pop(place)
            if isinstance(result, _Raised):
                if result.error is None:
                    return
                raise result.error
            yield result
            place += 1
            room.release()
    finally:
        stopped.set()
        room.release()
        for _ in threads:
            todo.put(None)
        for thread in threads:
            if thread is not threading.current_thread():  # where the garbage collector ends what nobody read to its end
                thread.join()
