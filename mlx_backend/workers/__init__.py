"""The networks in processes of their own: what ends one of them ends a run's piece of work, and not ComfyUI."""
