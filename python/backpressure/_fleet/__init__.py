"""Many producer processes, operated as one: what lies in Redis for them, and who writes it there."""
