"""The command line: generate, inspect, demo."""
