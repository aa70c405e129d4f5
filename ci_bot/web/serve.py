"""Web, composed."""

import uvicorn
from starlette.applications import Starlette

from ci_bot.nudge import Nudge
from ci_bot.settings import Settings
from ci_bot.store.engine import migrate, open_engine
from ci_bot.store.inbox import Inbox
from ci_bot.web.webhook import webhook


def serve(settings: Settings) -> int:
    engine = open_engine(settings.store_url)
    migrate(engine)

    def secrets() -> tuple[bytes, ...]:
        credentials = settings.credentials()
        return tuple(s.encode() for s in credentials.webhook_secrets) if credentials else ()

    app = Starlette(routes=[webhook(Inbox(engine), secrets, Nudge(settings.data_dir / "nudge.sock").send)])
    uvicorn.run(app, host=settings.host, port=settings.port, log_level="warning", access_log=False)
    return 0
