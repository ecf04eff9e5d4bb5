"""Learning other names of items."""
