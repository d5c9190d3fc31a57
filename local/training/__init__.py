"""Stage 2 for one fold: `Trainer(task, config).run()` ends with `best.pt` in the task's folder.

- `fold_data`: `FoldData`, what a fold trains on; `Progress`, where its training stands
- `steps`: one batch after the other: loss, gradients, optimiser, average; steps that go wrong
- `state`: all of it in a checkpoint, to the state of every random generator
- `fold`: epochs, validation, what is kept and when; signals
"""
