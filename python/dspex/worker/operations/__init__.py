"""What a worker can be asked for: one file for each operation; `table` names them all."""
