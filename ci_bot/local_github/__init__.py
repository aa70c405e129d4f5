"""A small, stateful, honest GitHub over local git repositories, for demo and tests; imports nothing of ci_bot."""
