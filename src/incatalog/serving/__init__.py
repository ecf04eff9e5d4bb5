"""Recommendations over HTTP: an OpenAI-compatible service and its page."""
