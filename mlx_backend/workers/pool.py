"""The children of this process: each takes a job at a time, and one that ends is begun again."""

from __future__ import annotations

import queue
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from weakref import WeakValueDictionary

from ..interface.errors import ProcessError, RequestError
from ..interface.events import LOGGER, Listener
from ..interface.variants import PROCESSES
from ..pipelines.run import Run
from ..pipelines.store import ModelStore
from ..runtime.machine import this_machine
from .protocol import Ended, Job
from .stores import Stores
from .worker import Worker

RESTARTS = 2  # of one piece of work
SMALLER = 4  # times, at each restart


class Pool:
    """`count` children, begun when they are needed; a job takes the first that is free. See Elsewhere."""

    def __init__(self, count: int = 1) -> None:
        self.stores = Stores(WeakValueDictionary())
        self.workers = [Worker(self.stores, rank, count) for rank in range(count)]
        self._idle: queue.PriorityQueue[int] = queue.PriorityQueue()
        for rank in range(count):
            self._idle.put(rank)

    @property
    def held_bytes(self) -> int:
        """What the children held in memory after their last jobs."""
        return sum(worker.held_bytes for worker in self.workers)

    def call(self, function: Callable[..., Any], *arguments: Any, listener: Listener) -> Any:
        """Return what a public function of the backend makes of these arguments in a child.

        A child that ends is begun again, twice at most, and a run then takes smaller dispatches. Raises ProcessError
        after that, what the function raises, and what the listener raises to stop it.
        """
        rank = self._idle.get()
        try:
            for restart in range(1, RESTARTS + 2):
                try:
                    return self.workers[rank].run(self._job(function, arguments, listener), listener)
                except Ended as end:
                    ending = str(end)
                if restart <= RESTARTS:
                    listener.warn(
                        f"The process of the networks has ended ({ending}). It is begun again, {restart} of {RESTARTS} "
                        "times, with smaller steps for the GPU; segments that were finished and kept stay."
                    )
                    arguments = tuple(map(_gentler, arguments))
            raise ProcessError(
                f"The process of the networks has ended {RESTARTS + 1} times ({ending}), so the run was given up; "
                "this program goes on. Close what else needs memory, or ask for less: a smaller size, shorter "
                "segments, packed weights."
            )
        finally:
            self._idle.put(rank)

    def loaded(self, store: ModelStore) -> tuple[str, ...]:
        """Return the components of a store that are in the memory of a child."""
        number = self.stores.number(store)
        return tuple(dict.fromkeys(name for worker in self.workers for name in worker.loaded.get(number, ())))

    def release(self) -> None:
        """End the children that have no job, and with them give their memory back."""
        ranks = []
        while not self._idle.empty():
            ranks.append(self._idle.get_nowait())
        for rank in ranks:
            self.workers[rank].end()
            self._idle.put(rank)

    def _job(self, function: Callable[..., Any], arguments: tuple[Any, ...], listener: Listener) -> Job:
        return Job(
            function=function,
            arguments=arguments,
            on_gpu=this_machine().on_gpu,
            wants_preview=listener.wants_preview,
            gone=self.stores.gone,
            log_level=LOGGER.getEffectiveLevel(),
        )


def wants_own_process(process: str) -> bool:
    """Return whether a choice of PROCESSES means a process of its own here: "auto" does where Metal computes.

    Raises RequestError.
    """
    if process not in PROCESSES:
        raise RequestError(f"The process '{process}' is unknown: choose one of {', '.join(PROCESSES)}.")
    return process == "own" or (process == "auto" and this_machine().is_metal)


def _gentler(argument: Any) -> Any:
    """Return a run whose dispatches on a GPU are a quarter as large, and anything else as it is."""
    if not isinstance(argument, Run):
        return argument
    backend = argument.how.backend
    smaller = replace(backend, dispatch_flops=backend.dispatch_flops / SMALLER)
    return replace(argument, how=replace(argument.how, backend=smaller))
