"""Whole models: where their parts lie, what they are, how they are loaded, offloaded, converted and downloaded."""
