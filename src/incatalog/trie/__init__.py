"""The immutable index of item token sequences."""
