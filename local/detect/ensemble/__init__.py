"""One submission from several runs."""
