"""The walk: intake, launch and report, three level-triggered loops of one process under one lease; no policy."""
