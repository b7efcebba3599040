"""Where runs run. The contract is that of :class:`concurrent.futures.Executor`: ``submit(function, *args)`` -> Future."""

from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

from capsnet.errors import InputError


class Inline(Executor):
    """In this process, at once: for debugging, for one GPU, and for each shard of a job array."""

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        """Run the function before returning. Ctrl-C is for whoever waits here, not for the future."""
        future: Future[Any] = Future()
        try:
            future.set_result(function(*args, **kwargs))
        except Exception as error:  # the future carries it
            future.set_exception(error)
        return future


def choose(workers: int) -> Executor:
    """The executor for a number of worker processes; 0 = in this process.

    Raises:
        InputError: a number that can't be had.
    """
    if workers != 0:
        raise InputError(f"--workers must be 0 (runs take turns in this process), not {workers}")
    return Inline()
