"""Semantic IDs: how an item becomes a few codes."""
