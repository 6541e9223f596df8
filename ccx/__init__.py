"""ccx: exact logical explanations of neurons over human concepts."""
