// Live numbers, refreshed sections, and "select all". Everything else works without it.
"use strict";
(() => {
  const state = document.getElementById("connection");
  const url = document.body.dataset.events;

  // --- Live numbers: `data-cell` names what an element shows -----------------------------------------------------------
  let cells = new Map();
  const known = new Map();
  const show = (element, [text, tone]) => {
    if (element.textContent !== text) element.textContent = text;
    if (element.dataset.tone !== tone) element.dataset.tone = tone;
  };
  // Elements that are there while a cell has a certain text: `data-when` names it, `data-is` is the text.
  const reveal = (name, [text]) => {
    for (const element of document.querySelectorAll(`[data-when="${CSS.escape(name)}"]`)) element.hidden = text !== element.dataset.is;
  };
  const collect = () => {
    cells = new Map();
    for (const element of document.querySelectorAll("[data-cell]")) {
      const name = element.dataset.cell;
      if (!cells.has(name)) cells.set(name, []);
      cells.get(name).push(element);
      if (known.has(name)) show(element, known.get(name));
    }
  };

  // --- The stream of updates -------------------------------------------------------------------------------------------
  const SILENCE = 6000;
  let source = null;
  let heard = 0;
  let wait = 1000;
  const tell = (kind, text) => {
    if (state && state.dataset.state !== kind) {
      state.dataset.state = kind;
      state.textContent = text;
    }
  };
  const close = () => {
    if (source) source.close();
    source = null;
  };
  const open = () => {
    close();
    heard = Date.now();
    source = new EventSource(url);
    source.addEventListener("cells", (event) => {
      heard = Date.now();
      wait = 1000;
      tell("live", "live");
      for (const [name, cell] of Object.entries(JSON.parse(event.data))) {
        known.set(name, cell);
        for (const element of cells.get(name) || []) show(element, cell);
        reveal(name, cell);
      }
    });
    source.onerror = () => {
      tell("lost", "connection lost, trying again");
      // The browser gives up after an answer that is no stream (a restart, a login that ended).
      if (source && source.readyState === EventSource.CLOSED) {
        close();
        setTimeout(() => { if (!source && !document.hidden) open(); }, wait);
        wait = Math.min(wait * 2, 30000);
      }
    };
  };
  if (url) {
    collect();
    open();
    setInterval(() => {
      if (source && Date.now() - heard > SILENCE) {
        tell("lost", "connection lost, trying again");
        open();
      }
    }, 2000);
    // Nobody looks: nobody needs to be told.
    document.addEventListener("visibilitychange", () => {
      if (document.hidden) { close(); tell("off", "paused"); } else { open(); }
    });
    addEventListener("pagehide", close);
  }

  // --- Sections that are taken anew from the page itself: `data-refresh` is in seconds ---------------------------------
  const busy = (section) =>
    section.contains(document.activeElement) ||
    section.querySelector("input:checked, details[open]") !== null ||
    (getSelection().toString() !== "" && section.contains(getSelection().anchorNode));
  const sections = () => [...document.querySelectorAll("[data-refresh]")];
  const due = new Map(sections().map((s) => [s.id, Date.now() + 1000 * s.dataset.refresh]));
  let refreshing = false;
  const refresh = async () => {
    if (refreshing || document.hidden) return;
    const now = Date.now();
    const wanted = sections().filter((s) => due.get(s.id) <= now && !busy(s));
    if (wanted.length === 0) return;
    refreshing = true;
    try {
      const answer = await fetch(location.href, { headers: { accept: "text/html" }, signal: AbortSignal.timeout(10000) });
      if (!answer.ok || answer.redirected) return;
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      for (const section of wanted) {
        const next = fresh.getElementById(section.id);
        due.set(section.id, Date.now() + 1000 * section.dataset.refresh);
        if (next && !busy(section) && next.innerHTML !== section.innerHTML) {
          section.replaceChildren(...next.childNodes);
        }
      }
      collect();
    } catch {
      // The state of the connection already tells.
    } finally {
      refreshing = false;
    }
  };
  if (due.size > 0) setInterval(refresh, 1000);

  // --- The quick search, by its key ---------------------------------------------------------------------------------------
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, textarea")) return;
    const wanted = document.querySelector(`[data-key="${CSS.escape(event.key)}"]`);
    if (!wanted) return;
    event.preventDefault();
    wanted.focus();
  });

  // --- Select all --------------------------------------------------------------------------------------------------------
  document.addEventListener("change", (event) => {
    const name = event.target.dataset && event.target.dataset.selectAll;
    if (!name) return;
    for (const box of document.getElementsByName(name)) box.checked = event.target.checked;
  });
})();
