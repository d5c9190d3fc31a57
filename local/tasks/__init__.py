"""What a task is: its examples, targets, outputs and loss."""
