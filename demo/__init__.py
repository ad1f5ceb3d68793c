"""The sample workflows, run without ComfyUI: `python -m demo`."""
