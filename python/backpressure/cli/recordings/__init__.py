"""Commands that read recordings: `recommend`, `replay` and `export`."""
