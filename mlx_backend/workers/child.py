"""The child: does one job after another, and tells the parent what the job tells its listener."""

from __future__ import annotations

import logging
import os
import pickle
import queue
import signal
import socket
import threading
import traceback
from typing import Any, NoReturn

import mlx.core as mx
import numpy as np
import psutil

from ..interface.errors import BackendError, Cancelled
from ..interface.events import LOGGER, Listener, Progress
from ..interface.workload import Workload
from ..pipelines.store import collect
from ..runtime.machine import held_memory
from .channel import Channel
from .protocol import Answer, Ended, Job, Logged, Stop, Told
from .stores import Stores


class Teller(Listener):
    """Tells the parent everything; the parent's Stop is what cancels."""

    def __init__(self, end: socket.socket, stores: Stores) -> None:
        self.channel = Channel(end, stores, self)
        self.stopped = threading.Event()
        self._phase = ""

    def progress(self, event: Progress) -> None:
        """Tell where the run is, and before a new phase what the last one took."""
        if event.phase != self._phase:
            self.tell_held()
            self._phase = event.phase
        self.channel.send(Told("progress", event))

    def warn(self, message: str) -> None:
        """Tell the warning."""
        self.channel.send(Told("warn", message))

    def note(self, message: str) -> None:
        """Tell the note."""
        self.channel.send(Told("note", message))

    def expect(self, work: Workload) -> None:
        """Tell what the whole run is made of."""
        self.channel.send(Told("expect", work))

    def preview(self, latent: np.ndarray) -> None:
        """Tell what there is to see."""
        self.channel.send(Told("preview", latent))

    def check_cancelled(self) -> None:
        """Raise Cancelled when the parent wants the job to stop."""
        if self.stopped.is_set():
            raise Cancelled("The run was stopped.")

    def tell_held(self) -> None:
        """Tell the most that MLX held since this was told last."""
        self.channel.send(Told("held", max(mx.get_peak_memory(), mx.get_active_memory())))
        mx.reset_peak_memory()


class _Log(logging.Handler):
    def __init__(self, channel: Channel, prefix: str) -> None:
        super().__init__()
        self._channel = channel
        self._prefix = prefix

    def emit(self, record: logging.LogRecord) -> None:
        """See logging.Handler."""
        self._channel.send(Logged(record.levelno, self._prefix + self.format(record)))


def serve(number: int, rank: int, count: int) -> NoReturn:
    """Do what the parent sends over the socket of this number, as child `rank` of `count`, until the parent ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal reaches both: the parent says what it means
    stores = Stores({})
    teller = Teller(socket.socket(fileno=number), stores)
    LOGGER.addHandler(_Log(teller.channel, f"[{rank + 1} of {count}] " if count > 1 else ""))
    LOGGER.propagate = False
    jobs: queue.SimpleQueue[Job | Exception] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(teller, jobs), daemon=True).start()
    while True:
        job = jobs.get()
        value, error = (None, job) if isinstance(job, Exception) else _made(job, teller, stores)
        try:
            teller.channel.send(Answer(value, error, stores.loaded, _held_bytes()))
        except Ended:
            os._exit(0)
        except Exception as failure:  # noqa: BLE001 - a value that cannot be sent: the parent is to be told so
            teller.channel.send(Answer(None, _sendable(failure), stores.loaded, _held_bytes()))


def _receive(teller: Teller, jobs: queue.SimpleQueue[Job | Exception]) -> None:
    """Take in messages while the main thread works. The end of the parent is the end of this process."""
    while True:
        try:
            message = teller.channel.receive()
        except Ended:
            os._exit(0)
        except Exception as error:  # noqa: BLE001 - a job that cannot be read is answered as one that fails
            jobs.put(_sendable(error))
            continue
        if isinstance(message, Stop):
            teller.stopped.set()
        else:
            teller.stopped.clear()
            jobs.put(message)


def _made(job: Job, teller: Teller, stores: Stores) -> tuple[Any, Exception | None]:
    mx.set_default_device(mx.gpu if job.on_gpu else mx.cpu)
    LOGGER.setLevel(job.log_level)
    teller.wants_preview = job.wants_preview
    stores.forget(job.gone)
    mx.reset_peak_memory()
    try:
        return job.function(*job.arguments), None
    except Ended:
        os._exit(0)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is the parent's to raise
        return None, _sendable(error)
    finally:
        teller.tell_held()
        collect()


def _held_bytes() -> int:
    try:
        return held_memory()
    except (psutil.Error, OSError):
        return 0


def _sendable(error: Exception) -> Exception:
    """Return an error that the parent can read, with the child's traceback where it is no sentence for the user."""
    if isinstance(error, BackendError):
        return error.with_traceback(None)
    trace = "".join(traceback.format_exception(error))
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001 - an error of a library, of any make
        error = RuntimeError(f"{type(error).__name__}: {error}")
    error.add_note(f"In the process of the networks:\n{trace}")
    return error.with_traceback(None)
