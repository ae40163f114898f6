"""Reading and checking the next bytes in a thread while the server works on the last ones."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


@contextmanager
def reading_ahead(items: Iterable[T], depth: int = 2) -> Iterator[Iterator[T]]:
    """Give the items in order, made by a thread that stays at most `depth` ahead.

    raises     whatever making an item raised, at the place of that item
    promise    the thread is over when the block is left, however it is left
    """
    made: queue.Queue[tuple[T | None, BaseException | None]] = queue.Queue(maxsize=depth)
    stopped = threading.Event()

    def put(item: T | None, error: BaseException | None) -> bool:
        while not stopped.is_set():
            try:
                made.put((item, error), timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def make() -> None:
        try:
            for item in items:
                if not put(item, None):
                    return
        except BaseException as error:  # handed to the reader, who raises it
            put(None, error)
            return
        put(None, StopIteration())

    def take() -> Iterator[T]:
        while True:
            item, error = made.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield item  # type: ignore[misc]

    thread = threading.Thread(target=make, name="datops-read-ahead", daemon=True)
    thread.start()
    try:
        yield take()
    finally:
        stopped.set()
        thread.join()
