"""Vectors of items, from their texts and from what teachers know of them."""
