"""The steps of the database's schema, run by Alembic (shared/db/schema.py)."""
