"""Faster files: a test that is cut off by a power failure may lose its trials."""

import pytest
import sqlalchemy


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk():
    """Let SQLite not wait until the disk has what it wrote."""

    def connected(connection, record):
        connection.execute("PRAGMA synchronous = OFF")

    sqlalchemy.event.listen(sqlalchemy.engine.Engine, "connect", connected)
    yield
    sqlalchemy.event.remove(sqlalchemy.engine.Engine, "connect", connected)
