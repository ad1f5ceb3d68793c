"""The sample: scripts that draw its pictures and videos, and a runner for the workflows without ComfyUI."""
