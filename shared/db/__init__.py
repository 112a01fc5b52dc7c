"""The history in SQL: conversations and their messages, on SQLite or PostgreSQL."""
