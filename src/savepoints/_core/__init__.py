"""The only room that begins, marks, rolls back and releases. Synchronous; the async face runs it by ``run_sync``."""
