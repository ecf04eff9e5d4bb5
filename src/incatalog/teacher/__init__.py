"""Sequential recommenders that extend training lists."""
