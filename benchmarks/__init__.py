"""Suites, one a file: what to compare."""
