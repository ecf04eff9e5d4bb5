"""Conversations in a terminal."""
