"""Decides: which engine does, what both are given, and what they share."""
