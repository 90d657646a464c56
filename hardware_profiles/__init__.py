"""Hardware profiles, one way of timing a device a file."""
