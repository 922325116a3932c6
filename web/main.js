// The page: events come in, the model keeps them, and at most twice a second they are shown.

import { Card } from "./charts.js";
import { Model } from "./model.js";
import { ledger, strip, tiles, waitsFor } from "./panels.js";
import { Stream } from "./stream.js";
import { seconds } from "./text.js";

const REDRAW_EVERY_MS = 500;
const THEMES = ["auto", "light", "dark"];
const LINKS = {
  connecting: "connecting",
  live: "live",
  stale: "stale",
  reconnecting: "reconnecting",
  stopped: "stopped",
  resting: "resting",
};

const root = document.documentElement;
const byId = (id) => document.getElementById(id);
const model = new Model();
const cards = [...document.querySelectorAll(".chart")].map((element) => new Card(element));
root.classList.add("ready");

let paused = false;
let dirty = false;
let drawnAt = -Infinity;
let timer = 0;
let link = "connecting";
let attempt = 0;

const stream = new Stream("api/v1/events", {
  snapshot: (data) => changed(() => model.snapshot(data)),
  delta: (data) => changed(() => model.delta(data)),
  status: (data) => changed(() => model.newStatus(data)),
  state: (name, tries) => {
    [link, attempt] = [name, tries];
    showLink();
  },
});

function changed(apply) {
  apply();
  dirty = true;
  schedule();
}

/** One redraw is planned at a time, and none sooner than half a second after the last. */
function schedule() {
  if (timer || paused || document.hidden) return;
  const wait = Math.max(0, drawnAt + REDRAW_EVERY_MS - performance.now());
  timer = setTimeout(() => {
    timer = 0;
    if (!paused && !document.hidden) draw();
  }, wait);
}

function draw() {
  dirty = false;
  drawnAt = performance.now();
  const { status } = model;
  if (status) {
    tiles(model);
    strip(status);
    ledger(status);
    const run = `${status.state}, up ${seconds(status.uptime)}`;
    if (byId("run").textContent !== run) byId("run").textContent = run;
  }
  for (const card of cards) {
    const view = model.views.get(card.view);
    if (view) card.show(view, waitsFor(model, view));
  }
}

function showLink() {
  const state = paused ? "paused" : link;
  byId("link").dataset.link = state;
  root.dataset.link = state;
  const word = paused ? "paused" : LINKS[link];
  const text = state === "reconnecting" && attempt > 1 ? `${word} (try ${attempt})` : word;
  if (byId("link-state").textContent !== text) byId("link-state").textContent = text;
  const age = Math.max(0, Math.floor(stream.age / 1000));
  const updated = model.views.size ? (age < 1 ? "updated just now" : `updated ${seconds(age)} ago`) : "";
  if (byId("updated").textContent !== updated) byId("updated").textContent = updated;
}

byId("pause").addEventListener("click", () => {
  paused = !paused;
  byId("pause").textContent = paused ? "Resume" : "Pause";
  byId("pause").setAttribute("aria-pressed", String(paused));
  showLink();
  if (dirty) schedule();
});

document.addEventListener("visibilitychange", () => {
  if (!document.hidden && dirty) schedule();
});

const themed = () => root.dataset.theme ?? "auto";
const showTheme = () => {
  byId("theme").textContent = `Theme: ${themed()}`;
};

byId("theme").addEventListener("click", () => {
  const next = THEMES[(THEMES.indexOf(themed()) + 1) % THEMES.length];
  if (next === "auto") delete root.dataset.theme;
  else root.dataset.theme = next;
  try {
    localStorage.setItem("falaj-theme", next);
  } catch {
    // It holds for this visit then.
  }
  showTheme();
  cards.forEach((card) => card.theme());
});

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => cards.forEach((card) => card.theme()));
showTheme();
showLink();
setInterval(showLink, 1000);
stream.open();
