"""States, the table of moves, and levels: what a transaction is, without SQLAlchemy."""
