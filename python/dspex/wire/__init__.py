"""How values become bytes: for workers, stored state and checkpoints."""
