"""Reinforcement on the answers of the engine."""
