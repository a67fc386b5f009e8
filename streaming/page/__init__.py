"""The operator's page: a live session in a browser, served by a process of its own."""
