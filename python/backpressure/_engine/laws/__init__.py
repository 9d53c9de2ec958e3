"""The laws that turn a sample of a queue into advice. A law is a file here and an entry in `registry`."""
