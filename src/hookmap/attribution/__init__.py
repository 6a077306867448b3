"""From one batch to its answers: targets pinned, evidence taken once, methods asked."""
