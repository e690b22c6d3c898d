"""Fixtures that every test may ask for."""

pytest_plugins = ["tests.fixtures.archives", "tests.fixtures.object_store"]
