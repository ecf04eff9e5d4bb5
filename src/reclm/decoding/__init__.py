"""Grounded generation."""
