"""The commands, a module each: `add_arguments`, `run`, and a docstring whose first line is its help."""
