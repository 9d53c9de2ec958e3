"""How queues stand, for those who look at them and produce nothing: the command line and the console."""
