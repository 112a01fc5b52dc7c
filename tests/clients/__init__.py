"""The Python client, the commands and the page, each against what cuts and restarts."""
