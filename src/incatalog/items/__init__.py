"""How an item becomes text and tokens."""
