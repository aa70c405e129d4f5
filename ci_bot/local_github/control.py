"""The local GitHub's remote control, for the demo and for tests: a small synchronous client of `/_local`."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx2 as httpx

from ci_bot.local_github.page_key import page_key

Json = dict[str, Any]
PERMISSIONS = {
    "checks": "write",
    "contents": "read",
    "issues": "write",
    "merge_queues": "read",
    "metadata": "read",
    "pull_requests": "write",
}
EVENTS = ("push", "pull_request", "check_run", "check_suite", "merge_group", "issue_comment")
_POLL_S = 0.05


class ControlError(Exception):
    """The local GitHub refused a command; the text is its reason."""


class Control:
    """Makes things happen on a local GitHub and looks at what happened."""

    def __init__(self, url: str, token: str) -> None:
        """Reach it under the address and with the token that it printed or wrote."""
        self.url = url.rstrip("/")
        self.api_url = f"{self.url}/api/v3"
        self._page_key = page_key(token)
        headers = {"Authorization": f"Bearer {token}"}
        self._client = httpx.Client(base_url=self.url, headers=headers, timeout=60, trust_env=False)

    def __enter__(self) -> Self:
        """Use it in a `with`."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Close its connections."""
        self.close()

    def close(self) -> None:
        """Close its connections."""
        self._client.close()

    def opened(self, path: str, *, as_login: str | None = None) -> str:
        """The address of a page that lets a browser sign in from then on, or signs it in as somebody at once."""
        who = f"&as={as_login}" if as_login else ""
        return f"{self.url}{path}{'&' if '?' in path else '?'}key={self._page_key}{who}"

    def _do(self, command: str, **said: Any) -> Json:
        done: Json = self._read(self._client.post(f"/_local/{command}", json=said))
        return done

    def _look(self, what: str, **query: Any) -> list[Json]:
        found: list[Json] = self._read(self._client.get(f"/_local/{what}", params=query))
        return found

    def _read(self, answer: httpx.Response) -> Any:
        if answer.is_success:
            return answer.json()
        try:
            said = answer.json()
        except ValueError as problem:
            raise ControlError(f"{answer.status_code}: {answer.text[:200]}") from problem
        raise ControlError(" ".join(str(said[key]) for key in ("message", "errors") if said.get(key)))

    def create_user(self, login: str, *, kind: str = "User", name: str | None = None) -> Json:
        """Make an account ("User" or "Organization"); `email` in commits is `<id>+<login>@users.noreply.localhost`."""
        return self._do("user", login=login, kind=kind, name=name)

    def set_role(self, full_name: str, login: str, role: str | None) -> None:
        """Give a person admin, maintain, write, triage or read in a repository, or nothing."""
        self._do("role", repository=full_name, login=login, role=role)

    def create_repository(self, full_name: str, *, private: bool = True, default_branch: str = "main") -> Path:
        """Make an empty repository, and its owner where new; the path to clone from and to push to."""
        return Path(self._do("repository", full_name=full_name, private=private, default_branch=default_branch)["path"])

    def fork(self, full_name: str, owner: str, *, name: str | None = None) -> Path:
        """Fork a repository to another account; the path to clone from and to push to."""
        return Path(self._do("fork", full_name=full_name, owner=owner, name=name)["path"])

    def delete_repository(self, full_name: str) -> None:
        """Delete a repository."""
        self._do("delete-repository", full_name=full_name)

    def create_app(
        self,
        name: str,
        webhook_url: str | None,
        *,
        permissions: Mapping[str, str] = PERMISSIONS,
        events: Sequence[str] = EVENTS,
        owner: str = "octocat",
        webhook_secret: str | None = None,
        callback_urls: Sequence[str] = (),
        setup_url: str | None = None,
    ) -> Json:
        """Register an App: id, slug, name, pem, webhook_secret, client_id, client_secret. GitHub pings its webhook."""
        return self._do(
            "app",
            name=name,
            webhook_url=webhook_url,
            permissions=dict(permissions),
            events=list(events),
            owner=owner,
            webhook_secret=webhook_secret,
            callback_urls=list(callback_urls),
            setup_url=setup_url,
        )

    def ping(self, app_id: int) -> None:
        """Send a ping to the App's webhook."""
        self._do("ping", app_id=app_id)

    def install(
        self, app_id: int, account: str, *, repositories: Sequence[str] | None = None, user: str | None = None
    ) -> Json:
        """Install an App on an account: on all repositories, or on those whose full names are given."""
        chosen = None if repositories is None else list(repositories)
        return self._do("install", app_id=app_id, account=account, repositories=chosen, user=user)

    def uninstall(self, installation_id: int) -> None:
        """Take an App off an account."""
        self._do("installation", installation_id=installation_id, action="delete")

    def suspend(self, installation_id: int) -> None:
        """Suspend an installation."""
        self._do("installation", installation_id=installation_id, action="suspend")

    def unsuspend(self, installation_id: int) -> None:
        """End the suspension of an installation."""
        self._do("installation", installation_id=installation_id, action="unsuspend")

    def choose_repositories(self, installation_id: int, repositories: Sequence[str]) -> None:
        """Let an installation cover these repositories and no others."""
        chosen = list(repositories)
        self._do("installation", installation_id=installation_id, action="choose", repositories=chosen)

    def open_pull_request(
        self,
        full_name: str,
        head: str,
        *,
        base: str | None = None,
        title: str = "",
        body: str | None = None,
        user: str | None = None,
    ) -> Json:
        """Open a pull request from "branch", or from a fork's "owner:branch"; its number is in the answer."""
        return self._do("open-pull", repository=full_name, head=head, base=base, title=title, body=body, user=user)

    def close_pull_request(self, full_name: str, number: int, *, user: str | None = None) -> None:
        """Close a pull request without merging it."""
        self._do("pull", repository=full_name, number=number, action="close", user=user)

    def reopen_pull_request(self, full_name: str, number: int, *, user: str | None = None) -> None:
        """Open a closed pull request again."""
        self._do("pull", repository=full_name, number=number, action="reopen", user=user)

    def merge_pull_request(self, full_name: str, number: int, *, user: str | None = None) -> str:
        """Merge a pull request; the SHA of the merge."""
        return str(self._do("pull", repository=full_name, number=number, action="merge", user=user)["sha"])

    def queue_pull_request(self, full_name: str, number: int, *, user: str | None = None) -> Json:
        """Put a pull request into the merge queue: head_ref, head_sha, base_ref, base_sha of its merge group."""
        return self._do("pull", repository=full_name, number=number, action="queue", user=user)

    def destroy_merge_group(self, head_ref: str, *, reason: str = "invalidated") -> None:
        """End a merge group; reason is merged, invalidated or dequeued."""
        self._do("leave-queue", head_ref=head_ref, reason=reason)

    def comment(self, full_name: str, number: int, body: str, *, user: str) -> Json:
        """Comment on a pull request as a person."""
        return self._do("comment", repository=full_name, number=number, body=body, user=user)

    def click(self, check_run_id: int, identifier: str, *, user: str | None = None) -> None:
        """Press a button of a check run, the owner by default. Roles are not looked at: that is the App's business."""
        self._do("click", check_run_id=check_run_id, identifier=identifier, user=user)

    def rerun(
        self, *, check_run_id: int | None = None, check_suite_id: int | None = None, user: str | None = None
    ) -> None:
        """Press "Re-run" of a check run, or "Re-run all checks" of a check suite."""
        self._do("rerun", check_run_id=check_run_id, check_suite_id=check_suite_id, user=user)

    def fault(self, kind: str, **where: Any) -> int:
        """Put a fault in force; its words are those of `ci_bot.local_github.faults.Rule`."""
        return int(self._do("fault", kind=kind, **where)["id"])

    def clear_faults(self) -> None:
        """End every fault, "down" included."""
        self._do("clear-faults")

    def down(self, mode: str | None = "503") -> None:
        """Let the API answer 503 to everything, or break every connection ("reset"); None ends it."""
        self._do("down", mode=mode)

    def limits(self, **bounds: int) -> None:
        """Change rate limits (`ci_bot.local_github.limits.Bounds`) and count anew; what is not given is GitHub's."""
        self._do("limits", **bounds)

    def expire_tokens(self) -> int:
        """Make every installation token that is out expired; how many there were."""
        return int(self._do("expire-tokens")["expired"])

    def requests(self, since: int = 0) -> list[Json]:
        """The requests to the API after an id: method, path, operation, status, caller, bodies, fault."""
        return self._look("requests", since=since)

    def deliveries(self) -> list[Json]:
        """Every webhook that was tried, in the shape of GitHub's delivery log, with the App's id."""
        return self._look("deliveries")

    def faults(self) -> list[Json]:
        """The faults in force, with how often each was met and has hit."""
        return self._look("faults")

    def check_runs(self, full_name: str, sha: str | None = None) -> list[Json]:
        """The check runs of a repository or of one commit, oldest first, with their `actions`."""
        query = {"repository": full_name} | ({"sha": sha} if sha else {})
        return self._look("check-runs", **query)

    def wait_check_runs(
        self,
        full_name: str,
        sha: str,
        until: Callable[[list[Json]], bool] | None = None,
        *,
        timeout_s: float = 30.0,
    ) -> list[Json]:
        """Wait for the check runs of a commit; by default until there is one and all are completed.

        Raises:
            TimeoutError: it did not come to pass; the text shows what there was.
        """
        until = until or (lambda runs: bool(runs) and all(run["status"] == "completed" for run in runs))
        ends = time.monotonic() + timeout_s
        while not until(runs := self.check_runs(full_name, sha)):
            if time.monotonic() > ends:
                shown = [(run["name"], run["status"], run["conclusion"], run["output"]["title"]) for run in runs]
                raise TimeoutError(f"check runs of {full_name}@{sha[:7]} after {timeout_s} s: {shown}")
            time.sleep(_POLL_S)
        return runs
