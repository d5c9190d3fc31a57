"""Files as they must not be, made by code, and what becomes of each."""
