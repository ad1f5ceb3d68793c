"""SCAIL-2 on Apple's MLX: the backend of the node pack, usable without ComfyUI and without torch."""

from .interface.version import VERSION

__version__ = VERSION
