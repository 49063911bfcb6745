"""What keeps the documentation true: examples that run, tables and outputs that are printed."""
