"""Tasks, one family a file: data, network, loss, metric and recipe."""
