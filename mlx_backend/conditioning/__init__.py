"""Turns prompts, pictures, videos and masks into what the networks take."""
