"""Histories and lists as chat messages, and messages as token ids."""
