"""Experiments on Ray; knows nothing of GitHub and never imports ci_bot."""
