"""The history of the tables; `ci_bot.store.engine.migrate` runs it."""
