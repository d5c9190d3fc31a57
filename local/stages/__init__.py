"""One file a stage: what it does, what it reads, what it depends on."""
