"""The command line: it prints and wires, and decides nothing."""
