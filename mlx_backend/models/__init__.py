"""The networks, named after the official checkpoints: no files, no prompts, no steps."""
