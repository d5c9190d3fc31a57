"""Measures on arrays: of recordings, of events and of spans, and the bootstrap behind intervals."""
