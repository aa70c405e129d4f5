"""The bytes of an experiment: the whole log as text, and its artifacts as downloads."""

import os
from collections.abc import Iterator
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response, StreamingResponse

from ci_bot.report.redact import Stream
from ci_bot.web.lookup import chosen_rank, number, readable_experiment
from ci_bot.web.room import room_of, secrets_of
from launcher.guardian.segments import Segments, cut_mark

CHUNK_BYTES = 1 << 18
NO_FILE = "There is no such artifact."


async def whole_log(request: Request) -> Response:
    """`/experiments/<id>/log`: all that is kept of one node's, cleaned and redacted.

    `?node=` chooses another than the one that tells most, `?attempt=` another attempt, `?offset=` a part.
    """
    room, experiment = room_of(request), await readable_experiment(request)
    newest = experiment.progress.attempt
    attempt = number(request, "attempt", newest)
    if attempt > newest:
        raise HTTPException(404, f"There is no attempt {attempt}; the newest is {newest}.")
    offset = number(request, "offset", 0)
    rank = chosen_rank(request, experiment, unless_chosen=await room.in_thread(lambda: room.telling_rank(experiment)))
    segments = room.log_of(experiment.id, attempt, rank)
    # A download must not wait for an experiment that writes faster than it reads: it ends where the log ends now.
    size = await room.in_thread(lambda: segments.size)
    text = _text(segments, offset, size, secrets_of(experiment))
    return StreamingResponse(text, media_type="text/plain; charset=utf-8", headers={"X-Log-Size": str(size)})


def _text(segments: Segments, offset: int, end: int, secrets: tuple[str, ...]) -> Iterator[str]:
    stream = Stream(secrets, begins_inside=offset > 0)
    while offset < end:
        chunk = segments.read(offset, min(CHUNK_BYTES, end - offset))
        if not chunk.data:
            break
        if mark := cut_mark(offset, chunk):
            # What is held back ends here, and what follows begins inside a line.
            shown, _ = stream.feed(b"", final=True)
            yield shown + mark.decode()
            stream = Stream(secrets, begins_inside=True)
        shown, stream = stream.feed(chunk.data)
        if shown:
            yield shown
        offset = chunk.next_offset
    yield stream.feed(b"", final=True)[0]


async def artifact(request: Request) -> Response:
    """`/experiments/<id>/artifacts/<path>`: one file, never shown by the browser, always saved."""
    room, experiment = room_of(request), await readable_experiment(request)
    store = room.keep.artifacts(experiment.id, experiment.progress.attempt)

    def locate() -> Path:
        try:
            path = store.locate(request.path_params["path"])
            straight = Path(os.path.realpath(store.directory), path.relative_to(store.directory))
            if path.is_file() and Path(os.path.realpath(path)) == straight:  # no part of it is a link
                return path
        except OSError:
            pass  # not a path below the artifacts: no such file
        raise HTTPException(404, NO_FILE)

    path = await room.in_thread(locate)
    headers = {"Content-Security-Policy": "default-src 'none'; sandbox; frame-ancestors 'none'"}
    return FileResponse(path, media_type="application/octet-stream", filename=path.name, headers=headers)
