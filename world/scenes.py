"""What a run is given and what should come out of it: reference, driving clip, masks, target and caption."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from .backdrops import PROPS, Backdrop
from .colours import HUES, name
from .puppets import HATS, Dance, Puppet, random_puppets
from .stage import IDENTITIES, Shot, perform, random_count, random_dances

MODES = ("animation", "replacement")
SWAPPED_SHARE = 0.3  # of the groups with several puppets: the second cast is the first with its roles swapped
WORDS = sorted(
    {"a", "puppet", "in", "shirt", "and", "dances", "dance", "before", "pale", "dark", "wall", "with"}
    | {word for hat in HATS for word in hat.split()}
    | {*HUES, *PROPS}
)  # every word of every caption


@dataclass(frozen=True, slots=True)
class Cast:
    """Puppets by role: the first performs the first dance. `poses` are those of the cast's two pictures."""

    puppets: tuple[Puppet, ...]
    poses: tuple[tuple[Dance, ...], ...]

    @property
    def words(self) -> str:
        """A phrase for captions, in the order of the roles."""
        each = [f"a puppet in a {name(p.colours['shirt'])} shirt with a {p.hat}" for p in self.puppets]
        return " and ".join(each) + (" dances" if len(each) == 1 else " dance")


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """Two casts, two backdrops, one choreography: every cast can perform it before every backdrop.

    `identities` are the mask colours of the roles, the same in every picture and clip of the group.
    """

    casts: tuple[Cast, Cast]
    backdrops: tuple[Backdrop, Backdrop]
    dances: tuple[Dance, ...]
    identities: tuple[str, ...]

    @classmethod
    def random(cls, seed: int, people: int | None = None) -> Group:
        """Draw a group with one to three people, or as many as asked for."""
        rng = np.random.default_rng(seed)
        count = people or random_count(rng)
        dances = random_dances(rng, count)
        casts = [_random_cast(rng, random_puppets(rng, count)) for _ in range(2)]
        if count > 1 and rng.random() < SWAPPED_SHARE:
            casts[1] = _random_cast(rng, casts[0].puppets[::-1])
        identities = (
            ("blue",) if count == 1 and rng.random() < 0.5 else tuple(rng.permutation(list(IDENTITIES))[:count])
        )
        return cls(
            (casts[0], casts[1]), (Backdrop.random(rng), Backdrop.random(rng)), dances, tuple(map(str, identities))
        )

    def clip(self, cast: int, backdrop: int, times: np.ndarray, size: int) -> Shot:
        """Return a cast's performance before a backdrop."""
        return perform(self.backdrops[backdrop], self.casts[cast].puppets, self.dances, times, size)

    def picture(self, cast: int, backdrop: int, view: int, size: int) -> Shot:
        """Return one of the two pictures of a cast, before a backdrop: a Shot of one frame."""
        chosen = self.casts[cast]
        return perform(self.backdrops[backdrop], chosen.puppets, chosen.poses[view], np.zeros(1), size)

    def caption(self, cast: int, backdrop: int) -> str:
        """Describe the clip of a cast before a backdrop."""
        return f"{self.casts[cast].words} {self.backdrops[backdrop].words}"

    def swapped(self) -> Group:
        """Return the group with the roles of the second cast reversed, in the very same pictures of it."""
        first, second = self.casts
        turned = Cast(second.puppets[::-1], tuple(poses[::-1] for poses in second.poses))
        return replace(self, casts=(first, turned))


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """A run: pictures [F, size, size, 3] uint8, masks in identity colours; and the clip that should come out.

    The masks' background says whose scene is kept: in animation the reference's (white there, black in the driving
    mask), in replacement the driving one (the opposite).
    """

    mode: str
    references: np.ndarray
    reference_masks: np.ndarray
    driving: np.ndarray
    driving_mask: np.ndarray
    caption: str
    target: Shot
    other_scene: np.ndarray  # the clip in the scene that should not be seen: [F, size, size, 3]
    group: Group

    @classmethod
    def of(cls, group: Group, mode: str, times: np.ndarray, size: int, extras: int = 0) -> Example:
        """The first cast drives before the first backdrop; the reference shows the second before the second."""
        is_replacement = mode == "replacement"
        scene = 0 if is_replacement else 1
        driving, target = group.clip(0, 0, times, size), group.clip(1, scene, times, size)
        shots = [group.picture(1, 1, view, size) for view in range(1 + extras)]
        around = [0 if is_replacement or view else 255 for view in range(1 + extras)]
        return cls(
            mode=mode,
            references=np.concatenate([blacked(s) if view else s.pictures for view, s in enumerate(shots)]),
            reference_masks=np.concatenate(
                [s.mask(group.identities, white) for s, white in zip(shots, around, strict=True)]
            ),
            driving=driving.pictures,
            driving_mask=driving.mask(group.identities, 255 if is_replacement else 0),
            caption=group.caption(1, scene),
            target=target,
            other_scene=group.clip(1, 1 - scene, times, size).pictures,
            group=group,
        )


def blacked(shot: Shot) -> np.ndarray:
    """Return the pictures of a shot, black around the puppets."""
    return shot.pictures * (shot.labels > 0)[..., None].astype(np.uint8)


def _random_cast(rng: np.random.Generator, puppets: tuple[Puppet, ...]) -> Cast:
    return Cast(puppets, tuple(random_dances(rng, len(puppets), wander=0.2) for _ in range(2)))
