"""The tiny models of the Wan goldens as folders, in the layouts that people have; each is made once."""

from pathlib import Path

from wan_weights import WAN, program


class Folders:
    """Makes folders below one."""

    def __init__(self, root: Path):
        self._root = root

    def __call__(self, layout: str, kind: str, *, bits: int | None = None, every: bool = False) -> Path:
        """Return the folder of a model, such as ("original", "t2v")."""
        root = self._root / f"{layout}-{bits}-{every}"
        if not (root / kind).is_dir():
            how = {"bits": bits, "every": every, "hollow": layout == "mlx-gen" and bits is None}
            program("layouts").make(root, layout, [kind], WAN, **{name: value for name, value in how.items() if value})
        return root / kind
