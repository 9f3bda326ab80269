// Keeps the drift feed live: ages move, rows arrive, counts follow. All text from hosts is set as
// text, never as markup. Without this script the pages still read; reload them to see what is new.
"use strict";

(() => {
  // As age() in collector/src/console/age.rs.
  const two = (number) => String(number).padStart(2, "0");
  const age = (millis) => {
    const seconds = Math.floor((Date.now() - millis) / 1000);
    if (seconds < 1) return "now";
    if (seconds < 60) return seconds + "s";
    if (seconds < 3600) return Math.floor(seconds / 60) + "m " + two(seconds % 60) + "s";
    if (seconds < 86400) return Math.floor(seconds / 3600) + "h " + two(Math.floor(seconds / 60) % 60) + "m";
    return Math.floor(seconds / 86400) + "d " + (Math.floor(seconds / 3600) % 24) + "h";
  };
  const tick = () => {
    for (const time of document.querySelectorAll("time[data-at]")) {
      const since = age(Number(time.dataset.at));
      const text = !("ago" in time.dataset) ? since : since === "now" ? "just now" : since + " ago";
      if (time.textContent !== text) time.textContent = text;
    }
  };
  tick();
  setInterval(tick, 1000);

  const feed = document.getElementById("feed");
  if (!feed) return;
  // Values and keys lie above a row's link, so that their titles show and their text can be selected.
  feed.addEventListener("click", (event) => {
    const row = event.target.closest(".row");
    if (row && !event.target.closest("a") && !String(getSelection())) row.querySelector(".cover").click();
  });
  if (!window.EventSource || !feed.dataset.after) return;

  const ROWS = 300; // Most rows kept on the page.
  const HELD = 2000; // Most rows held while paused or hidden.
  const blank = document.getElementById("blank");
  const live = document.getElementById("live");
  const liveText = document.getElementById("live-text");
  const pause = document.getElementById("pause");
  const spoken = document.getElementById("spoken");
  const view = feed.dataset.view;
  const host = feed.dataset.host;
  const held = new Map(); // Drift id -> newest row.
  let paused = false;
  let scheduled = false;

  const say = (state, text) => {
    live.dataset.state = state;
    liveText.textContent = text;
  };

  const belongs = (row) => {
    if (row.folded_under || (host && row.host_id !== host)) return false;
    if (view === "resolved") return row.state === "resolved";
    if (row.state === "resolved") return false;
    return view === "open" || view === row.verdict;
  };

  const put = (element, selector, text, title) => {
    const target = element.querySelector(selector);
    target.textContent = text;
    if (title) target.title = title;
    return target;
  };

  const value = (element, selector, text) => {
    const absent = text === null || text === undefined;
    const target = put(element, selector, absent ? "absent" : text, absent ? "" : text);
    target.classList.toggle("none", absent);
  };

  const fill = (element, row) => {
    element.dataset.id = row.id;
    element.dataset.verdict = row.verdict;
    element.dataset.state = row.state;
    if (row.package && row.kind !== "package") element.dataset.part = row.host_id + " " + row.package;
    else delete element.dataset.part;
    const cover = element.querySelector(".cover");
    cover.href = "/drift/" + row.id;
    cover.firstElementChild.textContent = row.verdict_text + " drift: " + row.kind + " " + row.key + ", " + row.field + ", on " + row.host;
    const time = element.querySelector("time.age");
    const at = new Date(row.millis);
    time.dataset.at = row.millis;
    time.dateTime = at.toISOString();
    time.title = "opened " + at.toISOString().slice(0, 19).replace("T", " ") + " UTC";
    time.textContent = age(row.millis);
    put(element, ".kind", row.kind);
    put(element, ".path", row.key, row.key);
    put(element, ".host", row.host);
    put(element, ".field", row.field);
    put(element, ".folds", row.folds ? "+ " + row.folds + " folded" : "").hidden = !row.folds;
    value(element, ".before .text", row.before);
    value(element, ".after .text", row.after);
    element.querySelector(".actor").title = row.actor;
    put(element, ".actor .line", row.actor);
    put(element, ".actor .through", row.through || "", row.through).hidden = !row.through;
    put(element, ".certainty", row.certainty).dataset.certainty = row.certainty;
    put(element, ".pill.verdict", row.verdict_text).dataset.verdict = row.verdict;
    put(element, ".pill.state", row.state).dataset.state = row.state;
  };

  const flash = (element) => {
    element.classList.remove("fresh");
    requestAnimationFrame(() => element.classList.add("fresh"));
  };

  const show = () => {
    scheduled = false;
    if (paused) return;
    let news = 0;
    const rows = [...held.values()].sort((a, b) => a.id - b.id);
    held.clear();
    for (const row of rows) {
      let element = feed.querySelector('[data-id="' + Number(row.id) + '"]');
      if (element && row.folded_under) {
        element.remove(); // Its package's drift stands for it from here on.
        continue;
      }
      if (element) {
        fill(element, row); // A row that is resolved now stays, dimmed, until the page is loaded anew.
        flash(element);
        continue;
      }
      if (!belongs(row)) continue;
      element = blank.content.firstElementChild.cloneNode(true);
      fill(element, row);
      feed.prepend(element);
      flash(element);
      news += 1;
    }
    // The parts of a package may have come before its own drift did, which stands for them now.
    for (const row of rows.filter((row) => row.folds)) {
      for (const part of feed.querySelectorAll('[data-part="' + row.host_id + " " + row.package + '"]')) part.remove();
    }
    while (feed.children.length > ROWS) feed.lastElementChild.remove();
    if (news > 0) {
      const empty = document.getElementById("empty");
      if (empty) empty.remove();
      spoken.textContent = news === 1 ? "One new drift." : news + " new drifts.";
    }
  };

  const schedule = () => {
    if (paused) {
      pause.textContent = "Resume" + (held.size ? " · " + held.size : "");
    } else if (!scheduled) {
      scheduled = true;
      requestAnimationFrame(show);
    }
  };

  pause.hidden = false;
  pause.addEventListener("click", () => {
    paused = !paused;
    pause.setAttribute("aria-pressed", String(paused));
    pause.textContent = paused ? "Resume" : "Pause";
    say(paused ? "paused" : "on", paused ? "Paused" : "Live");
    schedule();
  });

  // Counts: at most one question in two seconds, however fast changes come.
  let counting = false;
  let again = false;
  const count = async () => {
    if (counting) {
      again = true;
      return;
    }
    counting = true;
    again = false;
    try {
      const answer = await fetch("/api/v1/summary", { headers: { Accept: "application/json" } });
      if (answer.status === 401) location.assign("/login");
      if (answer.ok) {
        const summary = await answer.json();
        summary.open_notable = Math.max(0, summary.open_drifts - summary.open_critical);
        for (const place of document.querySelectorAll("[data-count]")) {
          const number = summary[place.dataset.count];
          if (place.parentElement.id === "folded") place.parentElement.hidden = !number;
          if (typeof number === "number") place.textContent = number.toLocaleString("en-US");
        }
      }
    } catch {
      // The stream tells whether the collector is reachable.
    }
    setTimeout(() => {
      counting = false;
      if (again) count();
    }, 2000);
  };
  setInterval(count, 5000);

  const notices = document.getElementById("notices");
  const gap = (notice) => {
    const line = document.createElement("p");
    line.className = notice.open ? "notice gap open" : "notice gap";
    for (const [tag, text] of [["strong", "Coverage gap"], ["span", notice.subject], ["span", notice.text]]) {
      const part = document.createElement(tag);
      part.textContent = text;
      if (text === notice.subject) part.className = "mono";
      line.append(part, " ");
    }
    notices.append(line);
    while (notices.querySelectorAll(".gap").length > 3) notices.querySelector(".gap").remove();
  };

  const source = new EventSource("/feed/events?after=" + encodeURIComponent(feed.dataset.after));
  source.addEventListener("ready", () => {
    if (!paused) say("on", "Live");
    count();
  });
  source.addEventListener("drift", (event) => {
    const row = JSON.parse(event.data);
    held.delete(row.id);
    held.set(row.id, row);
    if (held.size > HELD) held.delete(held.keys().next().value);
    schedule();
    count();
  });
  source.addEventListener("gap", (event) => gap(JSON.parse(event.data)));
  source.addEventListener("error", () => {
    if (source.readyState === EventSource.CLOSED) {
      say("off", "Not live: reload");
      // The session may be over; the question about counts leads to the login page then.
      count();
    } else {
      say("wait", "Reconnecting");
    }
  });
  addEventListener("pagehide", () => source.close());
})();
