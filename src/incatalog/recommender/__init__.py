"""The public face: recommendations, lists and chat."""
