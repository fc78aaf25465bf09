"""The data lines that training, evaluation and the recipe of the shipped model all read."""
