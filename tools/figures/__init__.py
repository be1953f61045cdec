"""Figures of the documentation that are drawn from the program's own tables."""
