"""What the hooks of several frameworks share."""
