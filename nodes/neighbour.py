"""Sharing the machine: memory is given back when ComfyUI or another workflow wants it, and a Mac stays awake."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from types import ModuleType
from typing import Any
from weakref import WeakSet

from ..mlx_backend.interface.events import LOGGER
from ..mlx_backend.runtime.awake import kept_awake


class Neighbour:
    """The stores whose networks may be released, held weakly, and whether a run needs them now."""

    def __init__(self) -> None:
        self._stores: WeakSet[Any] = WeakSet()
        self._working = 0

    def add(self, store: Any) -> None:
        """Know a ModelStore for as long as someone else keeps it."""
        self._stores.add(store)

    @contextmanager
    def undisturbed(self) -> Iterator[None]:
        """Release nothing while the block runs. Blocks may lie in each other."""
        self._working += 1
        try:
            yield
        finally:
            self._working -= 1

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Release nothing while the block runs, and keep a Mac awake."""
        with self.undisturbed(), kept_awake():
            yield

    def release(self) -> None:
        """Release every network in memory, unless a run is at work; handles stay valid and load again when used."""
        if self._working:
            return
        for store in list(self._stores):
            if store.loaded:
                LOGGER.info("Releasing %s: the memory is wanted.", ", ".join(store.loaded))
                store.release()

    def move_in(self) -> None:
        """Have ComfyUI ask here too whenever it frees memory, for itself or for /free. Once; no-op outside ComfyUI.

        ComfyUI offers no hook. Its `model_management.free_memory(bytes, device)` is where both end: a model that is to
        be loaded asks it for its bytes, `unload_all_models` (/free, the Manager's button, running out of memory) for
        more than there can be. The original is called in any case, as it was called.
        """
        management = sys.modules.get("comfy.model_management")
        if management is not None and not hasattr(management.free_memory, "scail2_original"):
            management.free_memory = self._asking(management)

    def _asking(self, management: ModuleType) -> Callable[..., Any]:
        original = management.free_memory

        def free_memory(memory_required: float, device: Any, *rest: Any, **named: Any) -> Any:
            # On a Mac, MLX and torch share the memory: what is free for one device is what is free at all.
            if self._stores and (device is None or memory_required > management.get_free_memory(device)):
                self.release()
            return original(memory_required, device, *rest, **named)

        free_memory.scail2_original = original
        return free_memory


@cache
def neighbour() -> Neighbour:
    """Return the one that the loader's stores and ComfyUI's requests meet in: the pack has no other common object."""
    return Neighbour()
