"""Training at any size: the stages of the paper, and an alignment before them for parts that never met.

`manifest` reads examples and `collator` makes batches of them; `objective` is the model with its losses, `stages` says
which of its parts learn, `trainer` runs the loop, and `run` puts them together.
"""
