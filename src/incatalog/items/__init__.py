"""How an item becomes tokens, and the prefix tree of all items."""
