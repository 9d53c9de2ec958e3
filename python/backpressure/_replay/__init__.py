"""Replays: what a policy would have done with what was recorded."""
