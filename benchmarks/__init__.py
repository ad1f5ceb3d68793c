"""Measurements, run on demand; see README.md."""
