"""The order of the work, and which component is in memory when."""
