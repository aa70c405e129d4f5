"""The GitHub App: a push in, an experiment on the team's Ray cluster, the truth on the check run."""
