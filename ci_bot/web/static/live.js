// The live log, running times, and questions before something is done. Without it the pages still tell all, at rest.
"use strict";
(() => {
  const MOST_CHARACTERS = 2_000_000; // of log in the page; the whole log has the rest
  const log = document.getElementById("log");

  if (log) {
    const lines = document.getElementById("lines");
    const partial = document.getElementById("partial");
    const follow = document.getElementById("follow");
    let characters = lines.textContent.length;
    let placedByUs = 0;

    const toEnd = () => {
      if (!follow.checked) return;
      log.scrollTop = log.scrollHeight;
      placedByUs = log.scrollTop;
    };

    const begin = (attempt) => {
      if (log.dataset.attempt === String(attempt)) return;
      log.dataset.attempt = attempt;
      document.getElementById("log-attempt").textContent = attempt > 1 ? `attempt ${attempt}` : "";
      lines.querySelectorAll(".piece").forEach((piece) => piece.remove());
      characters = 0;
    };

    document.getElementById("stream").addEventListener("log", (event) => {
      const said = JSON.parse(event.detail.data);
      begin(said.attempt);
      if (said.html) {
        const piece = document.createElement("span");
        piece.className = "piece";
        piece.innerHTML = said.html; // escaped by the server, down to its own spans
        lines.insertBefore(piece, partial);
        characters += piece.textContent.length;
        while (characters > MOST_CHARACTERS && lines.firstElementChild !== piece) {
          characters -= lines.firstElementChild.textContent.length;
          lines.firstElementChild.remove();
        }
      }
      if (said.partial !== undefined) partial.innerHTML = said.partial;
      toEnd();
    });

    log.addEventListener("scroll", () => {
      const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 24;
      if (log.scrollTop < placedByUs - 4) follow.checked = false;
      else if (atEnd) follow.checked = true;
    });
    follow.addEventListener("change", toEnd);
    follow.parentElement.hidden = false;
    toEnd();
  }

  const node = document.getElementById("node");
  if (node) {
    node.form.querySelector("button").hidden = true;
    node.addEventListener("change", () => node.form.requestSubmit());
  }

  // What is looked at may be old as soon as the server can't be asked; a moment's silence is no reason to say so.
  const PATIENCE_MS = 1500;
  const away = document.getElementById("away");
  let silence = null;

  const unheard = (status) => {
    const words = status === 401 ? "You are logged out here. Reload the page to go on."
      : status === 404 ? "This is no longer here for you. Reload the page."
      : status ? `Descent answers with an error (${status}). What you see here may be old; it is asked again.`
      : "Descent does not answer. What you see here may be old; it is asked again until it answers.";
    if (silence === null) silence = setTimeout(() => { away.textContent = words; away.hidden = false; }, PATIENCE_MS);
    else if (!away.hidden && away.textContent !== words) away.textContent = words;
  };
  const heard = () => {
    clearTimeout(silence);
    silence = null;
    away.hidden = true;
  };

  document.addEventListener("htmx:error", (event) => { if (event.detail.ctx) unheard(0); });
  document.addEventListener("htmx:after:request", (event) => {
    const status = event.detail.ctx.response.status;
    if (status >= 400) unheard(status);
    else heard();
  });
  document.addEventListener("htmx:sse:error", (event) => unheard(event.detail.status || 0));
  document.addEventListener("htmx:sse:after:connection", (event) => {
    if (event.detail.connection.status < 400) heard();
  });

  document.addEventListener("submit", (event) => {
    const question = event.target.dataset.confirm;
    if (question && !window.confirm(question)) event.preventDefault();
  });

  const words = (seconds) => {
    const s = Math.max(0, seconds);
    if (s < 9.95) return `${s.toFixed(1)} s`;
    const whole = Math.round(s);
    const two = (n) => String(n).padStart(2, "0");
    if (whole < 60) return `${whole} s`;
    if (whole < 3600) return `${Math.floor(whole / 60)} min ${two(whole % 60)} s`;
    if (whole < 86400) return `${Math.floor(whole / 3600)} h ${two(Math.floor((whole % 3600) / 60))} min`;
    return `${Math.floor(whole / 86400)} d ${two(Math.floor((whole % 86400) / 3600))} h`;
  };

  setInterval(() => {
    for (const each of document.querySelectorAll("[data-since]")) {
      each.textContent = words(Date.now() / 1000 - Number(each.dataset.since));
    }
  }, 1000);
})();
