"""Which of two experts a file is, and whether a file is one: their tensors look alike, so only names tell.

Sources of the names: Wan-Video/Wan2.2 (`low_noise_model`, `high_noise_model`), huggingface/diffusers (`transformer` is
the one for strong noise, `transformer_2` the other), Comfy-Org's and others' single files ("high", "low" as a word).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...interface.errors import RequestError, WeightsError
from ...members import member_named, members
from ...members.member import Member
from ..formats.sources import open_tensors

HIGH, LOW = "high", "low"
OLDER_WIDTHS = (1536,)  # of models that never had a second expert: the 1.3B
_WORDS = {
    HIGH: re.compile(r"(?<![a-z])high(?![a-z])|high[ ._-]?noise", re.IGNORECASE),
    LOW: re.compile(r"(?<![a-z])low(?![a-z])|low[ ._-]?noise", re.IGNORECASE),
}
_PAIRED = re.compile(r"wan[ ._-]?2[._]2|a14b", re.IGNORECASE)
_SINGLE = re.compile(r"wan[ ._-]?2[._]1|(?<![0-9.])1[._]3b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Experts:
    """The transformer of a model and, where there are two, the second; `member` is set where tensors cannot tell it."""

    dit: Path
    low_noise: Path | None = None
    member: str | None = None


def role(path: Path, root: Path | None = None) -> str | None:
    """Return HIGH or LOW where the name of a file, or of the folders between it and `root`, says which it is."""
    parts = path.relative_to(root).parts if root is not None and path.is_relative_to(root) else path.parts[-2:]
    for part in reversed(parts):
        found = [name for name, words in _WORDS.items() if words.search(part)]
        if len(found) == 1:
            return found[0]
    if "transformer_2" in parts[:-1]:
        return LOW
    return None


def expert_of(lora: Path, advice: str) -> str:
    """Return HIGH or LOW, as a LoRA's name says. Raises RequestError, with this advice, where it does not."""
    which = role(lora, lora.parent)
    if which is None:
        raise RequestError(
            f"{lora} may be for the high-noise expert or for the low-noise one, and its name does not tell: {advice}."
        )
    return which


def told_apart(
    found: Mapping[Path, str], root: Path | None, *, is_whole: bool, kind: str | None = None
) -> Experts | None:
    """Return which file is which of the diffusion transformers `found` (path to member), None where names do not tell.

    `is_whole`: they are all that a model's folder holds. `kind`: the member that the user says it is. Raises
    WeightsError for one expert without the other and for what only the user can tell.
    """
    paths = list(found)
    if len(paths) == 2:
        return _pair(paths, found, root, kind)
    if len(paths) != 1:
        return None
    path, member = paths[0], member_named(found[paths[0]])
    double = _double(member)
    if double is None:
        return Experts(path)
    which = role(path, root)
    said = kind or _named(path, root, double)
    if said is None and member.twin == "" and double is not member:  # it may as well be the older, single model
        if which is None and (is_whole or _width(path) in OLDER_WIDTHS):
            return Experts(path, member=member.name)
        if which is None:
            raise WeightsError(
                f"{path} may be {member.title}, or one of the two experts of {double.title}, and neither its tensors "
                f"nor its name tell: say --kind {member.name}, or name both experts with --dit (high noise) and "
                "--low-noise."
            )
    if said == member.name and double is not member and which is None:
        return Experts(path, member=member.name)
    lacking = f"the {LOW if which == HIGH else HIGH}-noise expert is" if which else "one expert is"
    raise WeightsError(
        f"{path} is {f'the {which}-noise expert' if which else 'one expert'} of {double.title}, but {lacking} missing: "
        "put both in one folder, or name them with --dit (high noise) and --low-noise."
    )


def double_of(names: Collection[str | None], paths: Sequence[Path]) -> str:
    """Return the member that two files are the experts of. Raises WeightsError."""
    doubles = {_double(member_named(name)) if name else None for name in names}
    double = doubles.pop()
    if doubles or double is None:
        raise WeightsError(
            f"{' and '.join(map(str, paths))} are not the two experts of one model: name the two that belong together, "
            "or one diffusion transformer alone."
        )
    return double.name


def check_pair(high: Path, low: Path) -> None:
    """Raise WeightsError where both experts are the same file, or hold the same weights."""
    is_same = high.resolve() == low.resolve()
    if not is_same:
        files = open_tensors(high), open_tensors(low)
        names = [set(file.tensors) for file in files]
        small = [name for name in sorted(names[0] & names[1]) if name.endswith(("head.modulation", "head.head.bias"))]
        small += [name for name in sorted(names[0] & names[1]) if name.endswith(("scale_shift_table", "proj_out.bias"))]
        compared = [(files[0].read(name), files[1].read(name)) for name in small]
        is_same = bool(compared) and all((a == b).all() if a.shape == b.shape else False for a, b in compared)
    if is_same:
        raise WeightsError(
            f"Both experts are the same: {high} and {low}. Name the one for high noise with --dit and the other with "
            "--low-noise."
        )


def _pair(paths: Sequence[Path], found: Mapping[Path, str], root: Path | None, kind: str | None) -> Experts | None:
    doubles = {_double(member_named(found[path])) for path in paths}
    roles = {role(path, root): path for path in paths}
    if None in roles and len(roles) == 2 and (HIGH in roles) != (LOW in roles):  # the other one is told by that
        roles[LOW if HIGH in roles else HIGH] = roles[None]
    if len(doubles) != 1 or None in doubles or not {HIGH, LOW} <= set(roles):
        return None
    double = doubles.pop()
    if kind not in (None, double.name):
        return None
    check_pair(roles[HIGH], roles[LOW])
    return Experts(roles[HIGH], roles[LOW], double.name)


def _double(member: Member) -> Member | None:
    """Return the member of two experts whose files look like this one's."""
    return next((row for row in members() if row.boundary and member.name in (row.name, row.twin)), None)


def _named(path: Path, root: Path | None, double: Member) -> str | None:
    """Return the member that the file or a folder is named after."""
    parts = (*(root.parts[-1:] if root is not None else ()), *path.parts[-2:])
    for part in reversed(parts):
        paired, single = bool(_PAIRED.search(part)), bool(_SINGLE.search(part))
        if paired != single:
            return double.name if paired else double.twin or double.name
    return None


def _width(path: Path) -> int:
    tensors = open_tensors(path).tensors
    shapes = [tensors[name].shape for name in tensors if name.endswith("patch_embedding.bias")]
    return shapes[0][0] if shapes else 0
