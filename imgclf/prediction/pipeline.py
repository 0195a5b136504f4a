"""Process items in several threads, in order, with few of them in memory."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class _Raised:
    """Stands in the place of a result, and is raised there. None marks the end of all items."""

    error: BaseException | None


class _Line(Generic[T, R]):
    """What the threads share: the items to do, and the results that are done, by their place."""

    def __init__(self, ahead: int) -> None:
        self.todo: SimpleQueue[tuple[int, T] | None] = SimpleQueue()
        self.room = threading.Semaphore(ahead)
        self.stopped = threading.Event()
        self._done: dict[int, R | _Raised] = {}
        self._arrived = threading.Condition()

    def feed(self, items: Iterator[T]) -> None:
        """Take items while there is room; run in a thread of its own."""
        place = 0
        try:
            while self.room.acquire() and not self.stopped.is_set():
                self.todo.put((place, next(items)))
                place += 1
        except StopIteration:
            self._deliver({place: _Raised(None)})
        except BaseException as error:
            self._deliver({place: _Raised(error)})

    def labor(self, work: Callable[[list[T]], list[R]], batch: int) -> None:
        """Work on what is there, up to `batch` items at a time; run in several threads."""
        while not self.stopped.is_set() and (first := self.todo.get()) is not None:
            taken = [first]
            try:
                while len(taken) < batch and (another := self.todo.get_nowait()) is not None:
                    taken.append(another)
            except Empty:
                pass
            places = [place for place, _ in taken]
            try:
                self._deliver(dict(zip(places, work([item for _, item in taken]), strict=True)))
            except BaseException as error:
                self._deliver(dict.fromkeys(places, _Raised(error)))

    def _deliver(self, results: dict[int, Any]) -> None:
        with self._arrived:
            self._done.update(results)
            self._arrived.notify()

    def wait_for(self, place: int) -> R | _Raised:
        """Return the result at a place, once it is there."""
        with self._arrived:
            while place not in self._done:
                self._arrived.wait()
            return self._done.pop(place)


def run(items: Iterator[T], work: Callable[[list[T]], list[R]], *, workers: int, batch: int, ahead: int) -> Iterator[R]:
    """Yield the result of each item, in the order of the items.

    Items are taken in a thread of their own, so that a list that arrives slowly is processed as it arrives: a worker
    takes what is there, up to `batch` items, and does not wait for more.

    Args:
        work: makes a list of results from a list of items. Several threads call it.
        ahead: how many items are taken, at most, before the first of their results is asked for.

    Raises:
        Exception: what `items` or `work` raises, after the results that come before it.
    """
    line: _Line[T, R] = _Line(ahead)
    # The feeder may wait for ever for input that somebody types, and must not keep the process from ending.
    threading.Thread(target=line.feed, args=(items,), name="sources", daemon=True).start()
    threads = [
        threading.Thread(target=line.labor, args=(work, batch), name=f"predict-{number}", daemon=True)
        for number in range(workers)
    ]
    for thread in threads:
        thread.start()
    try:
        place = 0
        while True:
            result = line.wait_for(place)
            if isinstance(result, _Raised):
                if result.error is None:
                    return
                raise result.error
            yield result
            place += 1
            line.room.release()
    finally:
        line.stopped.set()
        line.room.release()
        for _ in threads:
            line.todo.put(None)
        for thread in threads:
            if thread is not threading.current_thread():  # where the garbage collector ends a stream that was not read
                thread.join()
