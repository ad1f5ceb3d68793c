"""Every error a user can meet: one sentence that says what was found, where, what is allowed, what to do."""

from collections.abc import Sequence

SHOWN = 3  # names in a sentence; the rest is counted


class BackendError(Exception):
    """Base of all errors that are meant for the user; anything else is a fault of this program."""


class RequestError(BackendError):
    """A setting, picture, video or mask cannot be used as given."""


class WeightsError(BackendError):
    """A model file or folder is missing, incomplete, damaged or of another model."""


class MediaError(BackendError):
    """A picture or video file cannot be read or written."""


class DependencyError(BackendError):
    """A package or a part of the system that this work needs is missing or too old."""


class NumericsError(BackendError):
    """The model returned values that are not numbers."""


class ProcessError(BackendError):
    """The process in which the networks run could not be begun, or has ended too often."""


class Cancelled(BackendError):
    """The user stopped the run; not a failure."""


def listed(names: Sequence[str], rest: str = " and {} more") -> str:
    """Return the first names for a sentence, and what stands for the rest."""
    return ", ".join(names[:SHOWN]) + (rest.format(len(names) - SHOWN) if len(names) > SHOWN else "")
