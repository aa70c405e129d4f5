"""The pages about Apps: made from a manifest, installed, and allowed to know who a person is."""

import json
import secrets
from collections.abc import Awaitable, Callable

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response

from ci_bot.local_github import apps, oauth
from ci_bot.local_github.calls import Refusal, not_found
from ci_bot.local_github.hub import Hub
from ci_bot.local_github.session import form_of, must_sign_in, page, signed_in, with_query
from ci_bot.local_github.state import App, Installation, Json

Page = Callable[[Hub, Request], Awaitable[Response]]


async def _new_app(hub: Hub, request: Request) -> Response:
    """Take a manifest that another site's form posts, then show it to the person here."""
    if request.method == "POST":
        form = await request.form()
        # the foreign form comes without our cookie when the browser finds the sites different: keep it, and ask again
        number = secrets.token_hex(12)
        manifest = _parsed(str(form.get("manifest", "")))
        hub.world.manifests[number] = {"manifest": manifest, "state": request.query_params.get("state")}
        return RedirectResponse(f"{request.url.path}?manifest_id={number}", 303)
    number = request.query_params.get("manifest_id", "")
    if number not in hub.world.manifests:
        raise Refusal(422, "An App is made here from a manifest: post a form with the field manifest.")
    if signed_in(hub, request) is None:
        return must_sign_in(request)
    manifest = hub.world.manifests[number]["manifest"]
    owner = request.path_params.get("org") or signed_in(hub, request)
    name = manifest.get("name") or ""
    problems = apps.check_manifest(hub.world, {**manifest, "name": name or "unnamed"})
    values = {"manifest": manifest, "manifest_id": number, "owner": owner, "problems": problems, "name": name}
    return page(hub, request, "new_app.html", values)


def _parsed(text: str) -> Json:
    try:
        manifest = json.loads(text)
    except ValueError as problem:
        raise Refusal(422, f"The manifest is not JSON: {problem}") from problem
    if not isinstance(manifest, dict):
        raise Refusal(422, "The manifest must be a JSON object")
    unreadable = apps.misshapen(manifest)
    if unreadable:
        raise Refusal(422, "The manifest is not valid", unreadable)
    return manifest


async def _create_app(hub: Hub, request: Request) -> Response:
    """The person agreed: make the App and lead back to whoever posted the manifest, with a code."""
    if signed_in(hub, request) is None:
        return must_sign_in(request)
    form = await form_of(hub, request)
    kept = hub.world.manifests.get(str(form.get("manifest_id", "")))
    if kept is None:
        raise not_found()
    manifest = {**kept["manifest"], "name": str(form.get("name", ""))}
    code = await run_in_threadpool(oauth.register, hub.world, str(form.get("owner", "")), manifest)
    del hub.world.manifests[str(form["manifest_id"])]
    back = manifest.get("redirect_url") or manifest["url"]
    return RedirectResponse(with_query(back, {"code": code, "state": kept["state"]}), 303)


def _app(hub: Hub, request: Request) -> App:
    slug = request.path_params["slug"]
    found = next((app for app in list(hub.world.apps.values()) if app.slug == slug), None)
    if found is None:
        raise not_found()
    return found


async def _show_app(hub: Hub, request: Request) -> Response:
    app = _app(hub, request)
    where = [each for each in list(hub.world.installations.values()) if each.app_id == app.id]
    return page(hub, request, "app.html", {"app": app, "installations": where})


async def _install(hub: Hub, request: Request) -> Response:
    app, viewer = _app(hub, request), signed_in(hub, request)
    if viewer is None:
        return must_sign_in(request)
    mine = [each for each in list(hub.world.repositories.values()) if each.role_of(viewer) == "admin"]
    if request.method == "GET":
        accounts = sorted({viewer, *(each.owner for each in mine)}, key=lambda login: (login != viewer, login))
        values = {
            "app": app, "accounts": accounts, "repositories": mine, "state": request.query_params.get("state", ""),
        }  # fmt: skip
        return page(hub, request, "install.html", values)
    form = await form_of(hub, request)
    account = str(form.get("account", ""))
    if account != viewer and account not in {each.owner for each in mine}:
        raise Refusal(403, f"{viewer} may not install Apps on {account}")
    chosen = {int(str(each)) for each in form.getlist("repository_ids")}
    ids = None
    if form.get("selection") != "all":
        ids = [each.id for each in mine if each.id in chosen and each.owner == account]
        if not ids:
            raise Refusal(422, "Choose at least one repository")
    made = await run_in_threadpool(apps.install, hub.world, app, account, viewer, ids)
    if app.setup_url is None:
        return RedirectResponse(f"/settings/installations/{made.id}", 303)
    query = {"installation_id": str(made.id), "setup_action": "install", "state": str(form.get("state") or "") or None}
    return RedirectResponse(with_query(app.setup_url, query), 303)


def _installation(hub: Hub, request: Request, viewer: str) -> Installation:
    found = hub.world.installations.get(request.path_params["number"])
    mine = {viewer} | {each.owner for each in list(hub.world.repositories.values()) if each.role_of(viewer) == "admin"}
    if found is None or found.account not in mine:
        raise not_found()
    return found


async def _show_installation(hub: Hub, request: Request) -> Response:
    viewer = signed_in(hub, request)
    if viewer is None:
        return must_sign_in(request)
    found = _installation(hub, request, viewer)
    if request.method == "POST":
        action = (await form_of(hub, request)).get("action")
        if action == "uninstall":
            await run_in_threadpool(apps.uninstall, hub.world, found, viewer)
            return RedirectResponse(f"/apps/{hub.world.apps[found.app_id].slug}", 303)
        await run_in_threadpool(apps.suspend, hub.world, found, viewer, action == "suspend")
        return RedirectResponse(request.url.path, 303)
    covered = hub.world.covered(found)
    values = {"installation": found, "app": hub.world.apps[found.app_id], "repositories": covered}
    return page(hub, request, "installation.html", values)


async def _authorize(hub: Hub, request: Request) -> Response:
    viewer = signed_in(hub, request)
    if viewer is None:
        return must_sign_in(request)
    try:
        app, redirect_uri = oauth.check_request(hub.world, request.query_params)
    except oauth.Denied as denied:
        raise Refusal(404 if denied.code == "not_found" else 422, denied.words) from denied
    state = request.query_params.get("state")
    if request.method == "GET":
        return page(hub, request, "authorize.html", {"app": app, "redirect_uri": redirect_uri})
    form = await form_of(hub, request)
    if form.get("decision") != "authorize":
        words = "The user has denied your application access."
        query = {"error": "access_denied", "error_description": words, "state": state}
        return RedirectResponse(with_query(redirect_uri, query), 303)
    challenge = request.query_params.get("code_challenge")
    code = oauth.grant(hub.world, app, viewer, redirect_uri, challenge)
    return RedirectResponse(with_query(redirect_uri, {"code": code, "state": state}), 303)


async def _access_token(hub: Hub, request: Request) -> Response:
    """The exchange of a code, by the App itself; GitHub answers its refusals with status 200."""
    if "json" in request.headers.get("content-type", ""):
        said = {str(key): str(value) for key, value in (await request.json()).items()}
    else:
        said = {**request.query_params, **{key: str(value) for key, value in (await request.form()).items()}}
    try:
        answer = await run_in_threadpool(oauth.exchange, hub.world, said)
    except oauth.Denied as denied:
        answer = {"error": denied.code, "error_description": denied.words}
    if "json" in request.headers.get("accept", ""):
        return JSONResponse(answer)
    return PlainTextResponse(with_query("", answer).lstrip("?"), media_type="application/x-www-form-urlencoded")


PAGES: tuple[tuple[str, Page, tuple[str, ...]], ...] = (
    ("/settings/apps/new", _new_app, ("GET", "POST")),
    ("/organizations/{org}/settings/apps/new", _new_app, ("GET", "POST")),
    ("/settings/apps/create", _create_app, ("POST",)),
    ("/apps/{slug}", _show_app, ("GET",)),
    ("/apps/{slug}/installations/new", _install, ("GET", "POST")),
    ("/settings/installations/{number:int}", _show_installation, ("GET", "POST")),
    ("/login/oauth/authorize", _authorize, ("GET", "POST")),
    ("/login/oauth/access_token", _access_token, ("POST",)),
)
