"""Data sets that ccx can explain a network on."""
