"""Where a network's blocks come from: memory, where they stay, or a file, from which each comes when it is due."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from typing import Any, Protocol

from mlx import nn
from mlx.utils import tree_flatten


class BlockOffload(Protocol):
    """Hands out blocks in order, each with its weights in place until the next one is asked for."""

    def due(self, blocks: list[Any]) -> Generator[Any, None, None]:
        """Yield each of `blocks`. Closing the generator early releases what was read ahead."""


class Resident:
    """The blocks as they are."""

    def due(self, blocks: list[Any]) -> Generator[Any, None, None]:
        """See BlockOffload."""
        yield from blocks


class BlockNetwork(nn.Module):
    """A network whose work is a run through `blocks`; it does not know whether they stay in memory."""

    blocks: list[Any]

    def __init__(self) -> None:
        super().__init__()
        self._supply: BlockOffload = Resident()

    @property
    def supply(self) -> BlockOffload:
        """Where the blocks come from."""
        return self._supply

    @property
    def resident_bytes(self) -> int:
        """Bytes of the weights that stay in memory between two blocks."""
        in_memory = isinstance(self._supply, Resident)
        named = tree_flatten(self.parameters())
        return sum(array.nbytes for name, array in named if in_memory or not name.startswith("blocks."))

    def take_blocks_from(self, supply: BlockOffload) -> None:
        """Let the blocks come from `supply` from now on."""
        self._supply = supply

    def due_blocks(self) -> closing[Generator[Any, None, None]]:
        """Return the blocks of one pass, for a `with` statement: leaving it, also by an error, ends reading ahead."""
        return closing(self._supply.due(self.blocks))
