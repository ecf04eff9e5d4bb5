"""The constraint inside vLLM: what holds its answers to the catalog, and who asks it."""
