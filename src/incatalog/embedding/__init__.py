"""Texts of items to vectors."""
