"""A process as a member of a fleet: what operators want of it, and what it tells them."""
