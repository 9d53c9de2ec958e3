"""Policies that suit what was recorded: made, replayed, put in order, and written down."""
