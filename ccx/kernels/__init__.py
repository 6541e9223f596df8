"""Arrays in, arrays out: the primitives that ccx is built on, public for other tools."""
