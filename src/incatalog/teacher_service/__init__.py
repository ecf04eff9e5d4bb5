"""A teacher over HTTP, both ends."""
