"""Recordings: what queues were like over days, in one file, for replays and recommendations."""
