"""Files on disk: what they hold, how their names map to the networks, and the one door they load through."""
