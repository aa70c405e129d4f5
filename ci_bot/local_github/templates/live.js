// Keeps a page true: asks for it again, and puts in what changed, leaving open what was opened.
"use strict";
(() => {
  const PERIOD_MS = 1000;
  const opened = (root) => [...root.querySelectorAll("details")].map((each) => each.open);
  let last = null;
  async function look() {
    if (!document.hidden) {
      try {
        const answer = await fetch(location.pathname + location.search, { cache: "no-store" });
        const text = answer.ok ? await answer.text() : last;
        if (text !== null && text !== last) {
          const fresh = new DOMParser().parseFromString(text, "text/html").getElementById("live");
          const live = document.getElementById("live");
          const open = opened(live);
          if (fresh !== null) live.replaceChildren(...fresh.childNodes);
          const now = [...live.querySelectorAll("details")];
          if (now.length === open.length) now.forEach((each, at) => { each.open = open[at]; });
        }
        last = text;
      } catch {
        // the server is away; the next look will tell
      }
    }
    setTimeout(look, PERIOD_MS);
  }
  setTimeout(look, PERIOD_MS);
})();
