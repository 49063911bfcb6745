"""The traps of SQLAlchemy and its drivers that this library is there for, each one twice.

`test_tNN_plain_...` shows the trap on plain SQLAlchemy, as it is in 2.0 and 2.1. If such a test fails, upstream has
changed: the docstring says what that would mean. `test_tNN_ours_...` shows that our blocks do not have it.
"""
