"""The age law under simulated load: `python -m benches.control`."""
