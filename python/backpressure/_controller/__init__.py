"""What a producer holds."""
