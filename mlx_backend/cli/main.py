"""Which command was asked for, and what its errors become: one sentence and an exit code."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from typing import NoReturn

from ..interface.errors import BackendError, Cancelled, DependencyError, NumericsError, ProcessError
from ..interface.events import LOGGER
from ..runtime.awake import kept_awake
from . import bench, convert, demo, doctor, download, generate, inspect, plan

BAD_INPUT, FAILED, STOPPED = 2, 1, 130


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence, without the usage before it."""

    def error(self, message: str) -> NoReturn:
        """Exit with code 2."""
        self.exit(BAD_INPUT, f"{self.prog}: {message} (see {self.prog} --help)\n")


class Words(logging.Formatter):
    """Notes as they are, warnings named as such."""

    def format(self, record: logging.LogRecord) -> str:
        """See logging.Formatter."""
        prefix = "warning: " if record.levelno >= logging.WARNING else ""
        return prefix + super().format(record)


def main(arguments: Sequence[str]) -> int:
    """Run a command and return its exit code: 0 only when it did what was asked."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Words())
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    LOGGER.setLevel(logging.INFO)
    parser = Parser(prog="mlx_backend", description="SCAIL-2 on MLX: character animation from a picture and a video.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)
    for module in (generate, download, convert, inspect, demo, plan, doctor, bench):
        module.add_command(commands)
    chosen = parser.parse_args(arguments)
    try:
        with kept_awake():
            chosen.run(chosen)
    except (Cancelled, KeyboardInterrupt):
        sys.stderr.write("Stopped; nothing was written but what the next try goes on from.\n")
        return STOPPED
    except BackendError as error:
        sys.stderr.write(f"{error}\n")
        return FAILED if isinstance(error, (NumericsError, DependencyError, ProcessError)) else BAD_INPUT
    except OSError as error:  # a path too long, no permission, a disk that went away
        sys.stderr.write(f"{error.filename or 'A file'} cannot be used ({error.strerror or error}).\n")
        return BAD_INPUT
    return 0
