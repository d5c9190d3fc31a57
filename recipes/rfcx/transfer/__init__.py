"""Which rules hold on a competition that they were not chosen on: many small competitions."""
