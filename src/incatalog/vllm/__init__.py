"""The guarantee inside vLLM: its answers held to the items by the grammar of an answer."""
