"""What the pictures of a request are, whether they lie in memory or in a file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np


class Pictures(Protocol):
    """Pictures [F, H, W, 3] in 0..1, of which some are asked for at a time: an array is one, footage another.

    A slice is a view, nothing is read or copied for it. A number gives a picture, several numbers an array.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """Of all pictures, as an array's."""

    @property
    def ndim(self) -> int:
        """The number of axes."""

    def __len__(self) -> int:
        """Return the number of pictures."""

    def __getitem__(self, which: Any) -> Any:
        """Return a view, a picture [H, W, 3] or pictures [n, H, W, 3]."""

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yield picture after picture."""
