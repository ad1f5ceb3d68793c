"""SCAIL-2 on Apple's MLX: the backend of the node pack, usable without ComfyUI and without torch."""

__version__ = "0.1.0"
