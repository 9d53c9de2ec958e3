"""What the rooms above need of Python and of the machine: threads, pauses, other people's code, missing libraries."""
