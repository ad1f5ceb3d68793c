"""What the files of a model are told by: names and shapes of its diffusion transformer, as official names."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

# What attends to CLIP tokens, in patterns of weights/names/key_tables.py. `emb_pos` only where two pictures are seen.
IMAGE_BRANCH = (
    "img_emb.proj.{0,1,3,4}.{weight,bias}",
    "blocks.N.cross_attn.{k_img,v_img}.{weight,bias}",
    "blocks.N.cross_attn.norm_k_img.weight",
    "img_emb.emb_pos?",
)


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a file: its names (official ones, and its own without prefix), and its sizes where it has them.

    `in_dim` are the channels of the stem, `out_dim` those that come out.
    """

    names: Collection[str]
    image_branch: bool = False
    in_dim: int | None = None
    out_dim: int | None = None

    def has(self, beginning: str) -> bool:
        """Whether a name begins like this."""
        return any(name.startswith(beginning) for name in self.names)


@dataclass(frozen=True, kw_only=True, slots=True)
class Signature:
    """What tells a model from its relatives.

    `marks`: how names begin that only this model has, each of them needed; `absent`: how none may begin. A model
    without a mark of its own is told by its sizes; what is None may be anything. `names`: patterns of the tensors that
    a whole file has beside those of every Wan model.
    """

    names: tuple[str, ...] = ()
    marks: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    image_branch: bool | None = None
    in_dim: int | None = None
    out_dim: int | None = None

    def fits(self, facts: Facts) -> bool:
        """Whether a file is of this model, whole or not."""
        if not all(map(facts.has, self.marks)) or any(map(facts.has, self.absent)):
            return False
        if not self.marks and facts.in_dim is None:
            return False
        asked = (self.image_branch, self.in_dim, self.out_dim)
        found = (facts.image_branch, facts.in_dim, facts.out_dim)
        return all(want is None or want == have for want, have in zip(asked, found, strict=True))
