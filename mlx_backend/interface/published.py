"""Snapshots that are published: which commit of which repository, and what each takes on disk and in memory."""

from __future__ import annotations

from dataclasses import dataclass

BRANCH = "main"
SCAIL2_MLX = "SceneWorks/scail2-mlx"
# The commit that added the folders of the tiers. The public SceneWorks repository pins the same one, and states the
# bytes of each folder (config/manifests/builtin.models.jsonc, "scail2_14b"); no source states digests of single files.
SCAIL2_MLX_COMMIT = "ce88cfdb1008f395e9c820e525e6db7b6695f7b3"


@dataclass(frozen=True, kw_only=True, slots=True)
class Published:
    """A folder of a repository of the Hub ("": its root), at a commit or, where none is pinned, at a branch.

    `size`: bytes of its files, 0 where no source states them. `memory`: bytes that a run at 832x480 of 81 frames takes
    with the weights in memory, and with blocks streamed, as `plan` predicts them; zeros where it was not asked.
    """

    repository: str
    revision: str = BRANCH
    folder: str = ""
    about: str = ""
    size: int = 0
    memory: tuple[int, int] = (0, 0)

    @property
    def needs(self) -> str:
        """What it takes, for a sentence."""
        resident, streamed = (f"{value / 1e9:.0f}" for value in self.memory)
        return f"{self.about}: {self.size / 1e9:.0f} GB of disk, {resident} GB of memory or {streamed} GB streamed"

    @property
    def place(self) -> str:
        """Where it lies below a folder of models, as `hf download --local-dir` would put it: "scail2-mlx/q4"."""
        return "/".join(part for part in (self.repository.rsplit("/", 1)[-1], self.folder) if part)


def _tier(folder: str, about: str, size: int, memory: tuple[int, int]) -> Published:
    return Published(
        repository=SCAIL2_MLX, revision=SCAIL2_MLX_COMMIT, folder=folder, about=about, size=size, memory=memory
    )


PUBLISHED = {
    f"{SCAIL2_MLX}/q4": _tier("q4", "the DiT packed in 4 bits", 23_993_093_306, (15_400_000_000, 9_100_000_000)),
    f"{SCAIL2_MLX}/q8": _tier("q8", "the DiT packed in 8 bits", 32_067_131_269, (23_400_000_000, 9_100_000_000)),
    f"{SCAIL2_MLX}/bf16": _tier("bf16", "not packed", 47_205_846_839, (38_500_000_000, 9_100_000_000)),
}


def published(name: str) -> Published:
    """Return what a name stands for: a tier; its first tier for a repository that has some; else the repository."""
    tiers = (tier for known, tier in PUBLISHED.items() if known == name or tier.repository == name)
    return next(tiers, Published(repository=name))
