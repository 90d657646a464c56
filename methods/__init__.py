"""Compression methods, one a file. A new file here is listed, run and held to the contract by being here."""
