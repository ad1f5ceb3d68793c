"""Developers' tools: what draws the pictures, workflows and texts that lie in the repository; see README.md."""
