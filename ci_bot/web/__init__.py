"""What people and GitHub reach over HTTP: webhook, dashboard, API, set-up, health."""
