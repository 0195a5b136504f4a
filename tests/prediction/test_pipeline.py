import itertools
import queue
import threading
import time

import pytest

from imgclf.prediction import pipeline


def run(items, work, workers=3, batch=2, ahead=8):
    return pipeline.run(iter(items), work, workers=workers, batch=batch, ahead=ahead)


def doubled(items):
    return [2 * item for item in items]


def test_results_keep_the_order_of_the_items_however_long_each_takes():
    def work(items):
        time.sleep(0.002 * (items[0] % 3))
        return doubled(items)

    assert list(run(range(50), work)) == [2 * item for item in range(50)]


def test_no_more_items_are_taken_than_allowed():
    taken = itertools.count()
    results = run(taken, doubled, ahead=8)
    assert list(itertools.islice(results, 20)) == [2 * item for item in range(20)]
    time.sleep(0.05)
    assert next(taken) <= 20 + 8
    results.close()


def test_no_more_items_are_worked_on_together_than_allowed():
    sizes = []
    assert len(list(run(range(40), lambda items: sizes.append(len(items)) or items, batch=3))) == 40
    assert max(sizes) <= 3


def test_an_item_that_comes_late_keeps_no_earlier_one_waiting():
    lines: queue.Queue = queue.Queue()
    results = run(iter(lines.get, None), doubled)
    for line in (1, 2, 3):
        lines.put(line)
        assert next(results) == 2 * line
    lines.put(None)
    assert list(results) == []


def test_work_goes_on_in_several_threads():
    meet = threading.Barrier(3, timeout=10)
    assert list(run(range(3), lambda items: (meet.wait() and items) or items, workers=3, batch=1)) == [0, 1, 2]


@pytest.mark.parametrize("bad", [0, 7])
def test_what_work_raises_comes_after_the_results_before_it(bad):
    def work(items):
        if bad in items:
            raise ValueError(bad)
        return items

    results = run(range(20), work, batch=1)
    assert list(itertools.islice(results, bad)) == list(range(bad))
    with pytest.raises(ValueError, match=str(bad)):
        next(results)


def test_what_the_items_raise_comes_after_the_results_before_it():
    def items():
        yield 1
        raise OSError("the list was closed")

    results = run(items(), doubled)
    assert next(results) == 2
    with pytest.raises(OSError, match="the list was closed"):
        next(results)


def test_no_thread_is_left_when_it_is_closed_early():
    before = threading.active_count()
    results = run(itertools.count(), doubled)
    next(results)
    results.close()
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == before


def test_one_of_its_own_threads_may_end_it():
    left, ended = threading.Event(), threading.Event()

    def work(items):
        if items[0] == 5:
            left.wait(10)
            results.close()
            ended.set()
        return items

    results = run(itertools.count(), work, batch=1)
    next(results)
    left.set()
    assert ended.wait(10)
