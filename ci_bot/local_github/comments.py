"""Comments on pull requests, reactions to them, and their webhooks."""

from collections import Counter
from dataclasses import replace

from ci_bot.local_github import pulls, shapes, webhooks
from ci_bot.local_github.calls import Answer, Call, Refusal, invalid, not_found, paged
from ci_bot.local_github.shapes import moment, stamp
from ci_bot.local_github.state import Comment, Json, Repository, World

LONGEST_BODY = 65536
REACTIONS = ("+1", "-1", "laugh", "confused", "heart", "hooray", "rocket", "eyes")


def shape(world: World, comment: Comment) -> Json:
    """An "issue comment"."""
    repository = world.repositories[comment.repository_id]
    api = shapes.repository_url(world, repository)
    url = f"{api}/issues/comments/{comment.id}"
    counts = Counter(content for _, _, content, _ in comment.reactions)
    return {
        "id": comment.id,
        "node_id": shapes.node_id("IssueComment", comment.id),
        "url": url,
        "html_url": f"{world.html_url}/{repository.full_name}/pull/{comment.number}#issuecomment-{comment.id}",
        "issue_url": f"{api}/issues/{comment.number}",
        "body": comment.body,
        "user": shapes.person(world, comment.user),
        "created_at": stamp(comment.created_at),
        "updated_at": stamp(comment.updated_at),
        "author_association": "OWNER" if comment.user == repository.owner else "NONE",
        "performed_via_github_app": None if comment.app_id is None else shapes.app(world, world.apps[comment.app_id]),
        "reactions": {
            "url": f"{url}/reactions",
            "total_count": len(comment.reactions),
            **{name: counts[name] for name in REACTIONS},
        },
    }


def _issue(world: World, repository: Repository, number: int) -> Json:
    """The issue side of a pull request, as `issue_comment` carries it."""
    pull = pulls.find(world, repository, number)
    if pull is None:
        raise not_found()
    whole = pulls.simple_shape(world, pull)
    url = f"{shapes.repository_url(world, repository)}/issues/{number}"
    same = ("id", "node_id", "html_url", "number", "title", "user", "labels", "state", "locked", "assignee")
    more = ("assignees", "milestone", "created_at", "updated_at", "closed_at", "author_association", "body", "draft")
    return {
        **{name: whole[name] for name in (*same, *more, "active_lock_reason")},
        "url": url,
        "repository_url": shapes.repository_url(world, repository),
        "labels_url": f"{url}/labels{{/name}}",
        "comments_url": f"{url}/comments",
        "events_url": f"{url}/events",
        "comments": sum(
            (each.repository_id, each.number) == (repository.id, number) for each in world.comments.values()
        ),
        "pull_request": {name: whole[name] for name in ("url", "html_url", "diff_url", "patch_url", "merged_at")},
    }


def _tell(world: World, comment: Comment, action: str, sender: str, before: str | None = None) -> None:
    repository = world.repositories[comment.repository_id]
    told: Json = {
        "action": action,
        "issue": _issue(world, repository, comment.number),
        "comment": shape(world, comment),
        "sender": shapes.person(world, sender),
    }
    if before is not None:
        told["changes"] = {"body": {"from": before}}
    webhooks.emit(world, repository, "issue_comment", told)


def _text(body: Json) -> str:
    text = body["body"]
    if not isinstance(text, str) or not text.strip():
        raise invalid("IssueComment", "body", "missing_field", "body can't be blank")
    if len(text) > LONGEST_BODY:
        words = f"body is too long (maximum is {LONGEST_BODY} characters)"
        raise invalid("IssueComment", "body", "custom", words)
    return text


def write(world: World, repository: Repository, number: int, wanted: Json) -> Comment:
    """A new comment; `wanted` has body, user and, from an App, app_id.

    Raises:
        Refusal: 404 without such a pull request, 422 for its text.
    """
    text = _text(wanted)
    with world.lock:
        if pulls.find(world, repository, number) is None:
            raise not_found()
        now = world.clock()
        made = Comment(world.next_id(), repository.id, number, wanted["user"], text, now, now, wanted.get("app_id"))
        world.comments[made.id] = made
        _tell(world, made, "created", made.user)
        return made


def create_comment(call: Call) -> Answer:
    """`issues/create-comment`."""
    body = call.fields(("body",), ("body",))
    app_id = call.caller.app.id if call.caller.app else None
    wanted = {"body": body["body"], "user": call.caller.writer, "app_id": app_id}
    made = shape(call.world, write(call.world, call.repository, call.number("issue_number"), wanted))
    return Answer(made, 201, {"Location": made["url"]})


def list_comments(call: Call) -> Answer:
    """`issues/list-comments`, oldest first."""
    number = call.number("issue_number")
    if pulls.find(call.world, call.repository, number, call.as_of) is None:
        raise not_found()
    try:
        since = moment(call.query["since"]) if call.query.get("since") else 0.0
    except ValueError as problem:
        raise invalid("IssueComment", "since", "invalid") from problem
    found = [
        shape(call.world, each)
        for each in call.world.comments.values()
        if (each.repository_id, each.number) == (call.repository.id, number) and each.updated_at >= since
        if call.as_of is None or each.created_at <= call.as_of
    ]
    return paged(call, found)


def _comment(call: Call) -> Comment:
    comment = call.world.comments.get(call.number("comment_id"))
    if comment is None or comment.repository_id != call.repository.id:
        raise not_found()
    return comment


def _own(call: Call) -> Comment:
    comment = _comment(call)
    if comment.user != call.caller.writer and call.repository.role_of(call.caller.writer) not in ("admin", "maintain"):
        raise Refusal(403, "You cannot update this comment.")
    return comment


def get_comment(call: Call) -> Answer:
    """`issues/get-comment`."""
    return Answer(shape(call.world, _comment(call)))


def update_comment(call: Call) -> Answer:
    """`issues/update-comment`."""
    text = _text(call.fields(("body",), ("body",)))
    with call.world.lock:
        comment = _own(call)
        changed = replace(comment, body=text, updated_at=call.world.clock())
        call.world.comments[comment.id] = changed
        _tell(call.world, changed, "edited", call.caller.writer, comment.body)
        return Answer(shape(call.world, changed))


def delete_comment(call: Call) -> Answer:
    """`issues/delete-comment`."""
    with call.world.lock:
        comment = _own(call)
        _tell(call.world, comment, "deleted", call.caller.writer)
        del call.world.comments[comment.id]
    return Answer(None, 204)


def create_reaction(call: Call) -> Answer:
    """`reactions/create-for-issue-comment`; the same one again is given as it was."""
    content = call.fields(("content",), ("content",))["content"]
    if content not in REACTIONS:
        raise invalid("Reaction", "content", "invalid")
    who = call.caller.writer
    with call.world.lock:
        comment = _comment(call)
        known = [each for each in comment.reactions if each[1:3] == (who, content)]
        made = known[0] if known else (call.world.next_id(), who, content, call.world.clock())
        if not known:
            call.world.comments[comment.id] = replace(comment, reactions=(*comment.reactions, made))
    shown = {
        "id": made[0],
        "node_id": shapes.node_id("Reaction", made[0]),
        "user": shapes.person(call.world, who),
        "content": content,
        "created_at": stamp(made[3]),
    }
    return Answer(shown, 200 if known else 201)
