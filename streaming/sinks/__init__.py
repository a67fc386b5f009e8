"""Where clips go: files, film, contact sheet and report."""
