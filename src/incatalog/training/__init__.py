"""Supervised fine-tuning with trie-scoped losses."""
