"""The laws that turn a sample into advice."""
