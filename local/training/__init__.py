"""Stage 2 for one fold: what an epoch draws, and the loop that ends with `best.pt`.

- `epoch_plan`: what a fold may draw from, and which windows an epoch draws; `window_reading`: how
  each is read; `examples`: one window with its targets
- `augment/`, `losses/`, `optimisation`
- `fold_loop`: epochs, validation, what is kept and when; `steps`: one batch after the other;
  `progress`: where training stands; `resume_state`: all of it in a checkpoint
- `ranks`, `torchrun`: several processes that train one fold; `profiling`: what a step costs
"""
