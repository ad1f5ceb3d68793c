"""Pictures, videos and arrays on disk: read into clips, written from clips, laid out on contact sheets."""
