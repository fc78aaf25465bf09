"""How fast a model answers on this machine, in relation to the machine's limits and to other libraries."""
