"""Evaluation: the paper's tasks, asked, answered, scored and reported so that anyone gets the same figures."""
