"""Published snapshots: downloaded when a run needs one, never at import."""

from __future__ import annotations

from pathlib import Path

from ..spec.errors import DependencyError, WeightsError
from ..spec.events import LOGGER, Listener, Progress
from .snapshot import COMPONENTS, CONFIG, TOKENIZER, Snapshot

FILES = (CONFIG, TOKENIZER, *(f"{component}.safetensors" for component in COMPONENTS))


def download_snapshot(repository: str, root: Path, listener: Listener) -> Path:
    """Download a snapshot from the Hub into `root`/<name> and return that folder; what is there already is kept.

    A download that was broken off goes on where it stopped. Raises WeightsError, DependencyError, and whatever the
    listener raises to stop.
    """
    folder = root / repository.rsplit("/", 1)[-1]
    try:
        Snapshot.open(folder)
    except WeightsError:
        LOGGER.info("Downloading %s to %s.", repository, folder)
        for done, name in enumerate(FILES):
            listener.progress(Progress(phase=f"downloading {name}", done=done, total=len(FILES)))
            _download(repository, name, folder, listener)
        listener.progress(Progress(phase="downloading", done=len(FILES), total=len(FILES)))
    return folder


def _download(repository: str, name: str, folder: Path, listener: Listener) -> None:
    try:
        from huggingface_hub import hf_hub_download
        from tqdm.auto import tqdm
    except ImportError as error:
        raise DependencyError("Downloading models needs huggingface_hub: pip install huggingface_hub.") from error
    try:
        from httpx import HTTPError
    except ImportError:  # huggingface_hub before 1.0 uses requests, whose errors are OSErrors
        HTTPError = OSError  # noqa: N806 - a class

    class Bar(tqdm):
        """Passes progress on, and stops the download when the listener says so."""

        def update(self, n: float | None = 1) -> bool | None:
            listener.check_cancelled()
            if self.total:
                listener.progress(Progress(phase=f"downloading {name}", done=int(self.n), total=int(self.total)))
            return super().update(n)

    try:
        hf_hub_download(repository, name, local_dir=folder, tqdm_class=Bar)
    except (OSError, HTTPError, RuntimeError) as error:  # of disk and permissions, of the network, of hf_xet
        raise WeightsError(
            f"Downloading {name} of {repository} to {folder} failed ({' '.join(str(error).split())}): "
            "check the connection and the free space, then queue again; what has arrived is kept."
        ) from error
