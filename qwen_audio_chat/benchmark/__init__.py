"""How fast a model answers on this machine, as figures, as shares of the machine's limits, and beside its peers."""
