"""What a user can set, and how it is read from mappings, files and the environment."""
