"""Reproductions, one paper a file."""
