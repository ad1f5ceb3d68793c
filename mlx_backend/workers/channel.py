"""How messages travel: pickled, over a socket pair that only the two processes hold. Nothing listens anywhere."""

from __future__ import annotations

import io
import pickle
import socket
import struct
import threading
from collections.abc import Callable
from multiprocessing.connection import wait
from typing import Any

from ..interface.events import Listener
from .protocol import Ended
from .stores import Stores

HERE = __package__.rpartition(".")[0]  # the backend's name in this process: ComfyUI gives packs names of its own
BACKEND = HERE.rpartition(".")[2]
COUNT, LENGTH = struct.Struct(">I"), struct.Struct(">Q")


class Channel:
    """One end: sends and receives whole messages. Any thread may send, one receives.

    `listener` is who a listener becomes that arrives here. A store arrives as the one of its number in `stores`.
    """

    def __init__(self, end: socket.socket, stores: Stores, listener: Listener | None = None) -> None:
        self._end = end
        self._stores = stores
        self._listener = listener
        self._sending = threading.Lock()

    def send(self, message: Any) -> None:
        """Send a message; arrays are not copied. Raises Ended, and before anything is sent what pickle raises."""
        made, arrays = io.BytesIO(), []
        _Pickler(made, self._stores, arrays.append).dump(message)
        parts = [made.getbuffer(), *(array.raw() for array in arrays)]
        with self._sending:
            try:
                self._end.sendall(COUNT.pack(len(parts)) + b"".join(LENGTH.pack(part.nbytes) for part in parts))
                for part in parts:
                    self._end.sendall(part)
            except OSError as error:
                raise Ended(str(error)) from error

    def waits(self, seconds: float) -> bool:
        """Return whether a message, or the end, arrives within so many seconds."""
        return bool(wait([self._end], seconds))

    def receive(self) -> Any:
        """Return the next message. Raises Ended, and what pickle raises."""
        (count,) = COUNT.unpack(self._read(COUNT.size))
        lengths = [LENGTH.unpack(self._read(LENGTH.size))[0] for _ in range(count)]
        message, *arrays = [self._read(length) for length in lengths]
        return _Unpickler(io.BytesIO(message), self._stores, self._listener, arrays).load()

    def close(self) -> None:
        """End it, here."""
        self._end.close()

    def _read(self, length: int) -> bytearray:
        content = bytearray(length)
        view = memoryview(content)
        while view:
            try:
                read = self._end.recv_into(view)
            except OSError as error:
                raise Ended(str(error)) from error
            if not read:
                raise Ended("it said nothing more")
            view = view[read:]
        return content


class _Pickler(pickle.Pickler):
    def __init__(self, file: io.BytesIO, stores: Stores, take: Callable[[pickle.PickleBuffer], None]) -> None:
        super().__init__(file, protocol=5, buffer_callback=take)
        self._stores = stores

    def persistent_id(self, value: Any) -> tuple[Any, ...] | None:
        """Name what is not copied: a listener, which stays where it is, and a store, which both sides have."""
        if isinstance(value, Listener):
            return ("listener",)
        return self._stores.named(value)


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, stores: Stores, listener: Listener | None, arrays: list[bytearray]) -> None:
        super().__init__(file, buffers=arrays)
        self._stores = stores
        self._listener = listener

    def persistent_load(self, name: tuple[Any, ...]) -> Any:
        """Return what was named."""
        return self._listener if name[0] == "listener" else self._stores.found(name)

    def find_class(self, module: str, name: str) -> Any:
        """Find what is the backend's under the name that the backend has here."""
        inner = f".{module}".rpartition(f".{BACKEND}.")
        return super().find_class(f"{HERE}.{inner[2]}" if inner[1] else module, name)
