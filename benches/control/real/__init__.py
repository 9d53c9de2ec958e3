"""Both laws side by side on a real server, with real producers and workers: `make control`."""
