"""Benchmarks: round trips counted, CPU compared. See README.md beside this file."""
