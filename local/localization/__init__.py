"""Where it calls, by arrays of microphones: nothing is here yet."""
