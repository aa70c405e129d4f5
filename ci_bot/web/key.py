"""The one-time key that opens the dashboard where there is no GitHub login."""


from ci_bot.settings import Settings


def invitation(settings: Settings, url: str) -> str:
    """The address that opens the dashboard."""
    return url
