"""The parent's handle of one child: begins it, passes its events on, stops it, and knows how it ended."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from pathlib import Path
from typing import IO, Any

from ..interface.errors import ProcessError
from ..interface.events import LOGGER, Listener
from .channel import BACKEND, Channel
from .protocol import Answer, Ended, Job, Logged, Stop, Told
from .stores import Stores

ROOT = Path(__file__).parents[2]
LOOK_SECONDS = 0.05  # between two looks at the Cancel button
STOP_SECONDS = 60.0  # for a block of the DiT or a frame of the VAE to end; then the process is ended
END_SECONDS = 10.0
LAST_WORDS = 5  # lines


class Worker:
    """Child `rank` of `count`, begun when a job needs it. One job at a time."""

    def __init__(self, stores: Stores, rank: int, count: int) -> None:
        self.loaded: dict[int, tuple[str, ...]] = {}
        self.held_bytes = 0
        self._stores = stores
        self._place = (str(rank), str(count))
        self._process: subprocess.Popen[str] | None = None

    @property
    def pid(self) -> int | None:
        """The child's process number, None where there is none."""
        return None if self._process is None else self._process.pid

    def run(self, job: Job, listener: Listener) -> Any:
        """Return what the job makes; raise what it raises, and what the listener raises to stop it.

        Raises Ended when the child ends before that, and ProcessError when none can be begun.
        """
        if self._process is None:
            self._begin()
        try:
            self._channel.send(job)
            answer = self._answer(listener)
        except Ended as error:
            raise Ended(self.end()) from error
        if answer.error is not None:
            raise answer.error
        return answer.value

    def end(self) -> str:
        """End the child, if there is one, and with it give all its memory back; return how it ended."""
        if self._process is None:
            return "it was not there"
        process, self._process, self.loaded, self.held_bytes = self._process, None, {}, 0
        self._channel.close()
        try:
            process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._reading.join(END_SECONDS)
        last = " / ".join(line.strip() for line in self._last_words if line.strip())
        return _ending(process.returncode) + (f"; its last words: {last}" if last else "")

    def _begin(self) -> None:
        ours, theirs = socket.socketpair()
        path = os.environ.get("PYTHONPATH")
        environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{path}" if path else str(ROOT)}
        with theirs:
            number = theirs.fileno()
            # -P: the current folder is no place to import from. __main__ of ComfyUI is not run again.
            command = [sys.executable, "-P", "-m", f"{BACKEND}.workers", str(number), os.pathsep.join(sys.path)]
            try:
                self._process = subprocess.Popen(
                    [*command, *self._place],
                    env=environment,
                    pass_fds=(number,),
                    stdin=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    text=True,
                    errors="replace",
                )
            except OSError as error:
                ours.close()
                raise ProcessError(
                    f"No process for the networks could be begun with {sys.executable} ({error}): "
                    "choose 'shared' for process, and they run in this one."
                ) from error
        self._channel = Channel(ours, self._stores)
        self._last_words: deque[str] = deque(maxlen=LAST_WORDS)
        self._reading = threading.Thread(target=_read, args=(self._process.stderr, self._last_words), daemon=True)
        self._reading.start()

    def _answer(self, listener: Listener) -> Answer:
        """Pass on what the job tells until it is done."""
        try:
            while True:
                listener.check_cancelled()
                if self._channel.waits(LOOK_SECONDS):
                    message = self._channel.receive()
                    if isinstance(message, Answer):
                        self.loaded, self.held_bytes = message.loaded, message.held_bytes
                        return message
                    _pass_on(message, listener)
        except Ended:
            raise
        except BaseException:  # Cancel, in whatever form the listener has it
            self._stop()
            raise

    def _stop(self) -> None:
        """Let the job end at its next look; the networks stay. Where it does not look, the child is ended."""
        until = time.monotonic() + STOP_SECONDS
        try:
            self._channel.send(Stop())
            while self._channel.waits(max(until - time.monotonic(), 0)):
                message = self._channel.receive()
                if isinstance(message, Answer):
                    self.loaded, self.held_bytes = message.loaded, message.held_bytes
                    return
        except Ended:
            pass
        self.end()


def _pass_on(message: Told | Logged, listener: Listener) -> None:
    if isinstance(message, Logged):
        LOGGER.log(message.level, "%s", message.text)
    else:
        getattr(listener, message.event)(message.value)


def _read(stderr: IO[str], last: deque[str]) -> None:
    """Show what the child and its libraries print, and keep the end of it."""
    with stderr:
        for line in stderr:
            last.append(line)
            sys.stderr.write(line)


def _ending(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"signal {signal.Signals(-code).name}"
    except ValueError:
        return f"signal {-code}"
