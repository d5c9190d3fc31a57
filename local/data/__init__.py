"""The three tables, annotation formats, folds, reviewed rows."""
