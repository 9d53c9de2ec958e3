"""Holds the age of queues: budgets that all producers share, and who waits for them in this process."""
