"""Small facts by name, such as up to when GitHub's list of deliveries was swept."""

from sqlalchemy import Connection, select

from ci_bot.store.tables import insert, mark


def get(connection: Connection, name: str) -> str | None:
    """The value, if there is one."""
    value: str | None = connection.execute(select(mark.c.value).where(mark.c.name == name)).scalar()
    return value


def put(connection: Connection, name: str, value: str) -> None:
    """Store a value in the place of the former one."""
    statement = insert(connection, mark).values(name=name, value=value)
    connection.execute(statement.on_conflict_do_update(index_elements=["name"], set_={"value": value}))
