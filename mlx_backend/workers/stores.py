"""The stores of models that both processes have: without weights in the parent, with them in the child."""

from __future__ import annotations

from collections.abc import Iterable, MutableMapping
from typing import Any

from ..pipelines.store import ModelStore


class Stores:
    """Stores by number: a store that was sent once is the same one the next time, with what it has loaded.

    A parent keeps them in a weak mapping: what nobody has any more is to be forgotten by the child too.
    """

    def __init__(self, by_number: MutableMapping[int, ModelStore]) -> None:
        self._by_number = by_number
        self._next = 0

    @property
    def gone(self) -> frozenset[int]:
        """The numbers that were given to stores which nobody has any more."""
        return frozenset(range(self._next)).difference(self._by_number)

    @property
    def loaded(self) -> dict[int, tuple[str, ...]]:
        """What each holds in memory, those left out that hold nothing."""
        return {number: store.loaded for number, store in self._by_number.items() if store.loaded}

    def number(self, store: ModelStore) -> int:
        """Return a store's number, a new one for a new store."""
        for number, other in list(self._by_number.items()):
            if other is store:
                return number
        number, self._next = self._next, self._next + 1
        self._by_number[number] = store
        return number

    def named(self, value: Any) -> tuple[Any, ...] | None:
        """Return a store's number and what makes an equal one; None for what is no store."""
        if not isinstance(value, ModelStore):
            return None
        return (self.number(value), value.snapshot, value.precision, value.residency, value.cache, value.memory)

    def found(self, name: tuple[Any, ...]) -> ModelStore:
        """Return the store that was named, made here if it is new."""
        number, *made_from = name
        if number not in self._by_number:
            self._by_number[number] = ModelStore(*made_from)
        return self._by_number[number]

    def forget(self, numbers: Iterable[int]) -> None:
        """Release those of these numbers."""
        for number in self._by_number.keys() & set(numbers):
            self._by_number.pop(number).release()
