// Tiles, the pipeline strip and the ledger: from the newest status.
// The server renders the same shapes for the first snapshot (page.rs).

import { rejected, rowsOut } from "./model.js";
import { bytes, clock, count, rate, seconds } from "./text.js";

const SPARK = { width: 100, height: 28 };

export function tiles(model) {
  const { status, history } = model;
  if (!status) return;
  const source = status.source;
  const lag = status.lag;
  const each = status.sinks.map((sink) => `${sink.name} ${rate(sink.rate)} /s`);
  tile("in", rate(source?.rate ?? 0), `${count(source?.records_total ?? 0)} since start`, history);
  tile("out", rate(rowsOut(status)), each.join(" · ") || "no store", history);
  tile("lag", count(lag.records), lag.records ? `${seconds(lag.seconds)} behind` : "up to date", history);
  tile("rejected", count(rejected(status)), reasons(status), history);
  tile("withheld", count(status.withheld), null, history);
  tile("protected", count(model.suppressed()), null, history);
}

function reasons(status) {
  const parts = Object.entries(status.rejects).map(([reason, n]) => `${reason} ${count(n)}`);
  if (status.late > 0 && !("late" in status.rejects)) parts.push(`and late ${count(status.late)}`);
  return parts.join(" · ") || "none";
}

function tile(id, value, more, history) {
  const root = document.querySelector(`[data-tile="${id}"]`);
  say(root.querySelector(".value b"), value);
  if (more !== null) say(root.querySelector(".more"), more);
  if (history.length < 2) return;
  const samples = history.map((sample) => sample[id]);
  const top = Math.max(1, ...samples);
  const step = SPARK.width / (samples.length - 1);
  const line = samples
    .map((sample, i) => {
      const y = SPARK.height - 1 - (sample / top) * (SPARK.height - 3);
      return `${i ? "L" : "M"}${(i * step).toFixed(1)},${y.toFixed(1)}`;
    })
    .join("");
  root.querySelector(".line").setAttribute("d", line);
  root.querySelector(".area").setAttribute("d", `${line}L${SPARK.width},${SPARK.height}L0,${SPARK.height}Z`);
}

export function strip(status) {
  const source = status.source;
  const items = status.stages.map((stage) => {
    const details = stage.detail ? [stage.detail] : [];
    const isSource = stage.name === "source" && source;
    if (isSource) {
      if (!stage.detail && source.detail) details.push(source.detail);
      if (source.retry_at) details.push(`next try ${clock(source.retry_at)}`);
    }
    if (stage.name === "views" && status.lag.records > 0) details.push(`${seconds(status.lag.seconds)} behind`);
    return item(stage.name, isSource ? source.kind : "", stage.state, stage.rate, details.join(" · "));
  });
  if (inactive(status) && items.length === 0) {
    const parts = [
      node("h3", [node("i", [], "mark"), "pipeline"]),
      node("p", [status.state], "rate"),
      node("p", [status.detail ?? ""], "detail"),
    ];
    const li = node("li", parts, "stage");
    li.dataset.state = "waiting";
    items.push(li);
  }
  for (const sink of status.sinks) {
    const li = item(sink.name, sink.kind, sink.state, sink.rate, sinkDetail(sink));
    li.className = "sink";
    items.push(li);
  }
  fill(document.getElementById("strip"), items);
}

function sinkDetail(sink) {
  const details = [];
  if (sink.state !== "ok" && sink.last_error) {
    details.push(sink.last_error, `since ${clock(sink.since)}`);
    if (sink.retry_at) details.push(`next try ${clock(sink.retry_at)}`);
  }
  if (sink.pending) details.push(`${count(sink.pending)} waiting`);
  if (sink.behind) details.push("catching up");
  if (sink.refused_total) details.push(`${count(sink.refused_total)} refused`);
  return details.join(" · ");
}

/** Whether this falaj does not run the pipeline, or not yet. */
function inactive(status) {
  return ["starting", "waiting", "standby"].includes(status.state);
}

function item(name, kind, state, perSecond, detail) {
  const said = state === "ok" ? node("span", ["ok"], "sr") : node("em", [state]);
  const parts = [
    node("h3", [node("i", [], "mark"), name, " ", node("small", [kind])]),
    node("p", [`${rate(perSecond)} /s `, said], "rate"),
    node("p", [detail], "detail"),
  ];
  const li = node("li", parts, "stage");
  li.dataset.state = state;
  if (detail) li.title = detail;
  return li;
}

export function ledger(status) {
  const { checkpoint, ledger } = status;
  if (!checkpoint) return;
  const { source, topic, views } = ledger;
  const lines = [
    line("source", source.in, "in", { published: source.published, rejected: source.rejected, withheld: source.withheld }, { published: source.replayed }),
    line("topic", topic.read, "read", { out: topic.out, rejected: topic.rejected, duplicate: topic.duplicate }),
    ...Object.entries(views).map(([name, view]) => line(name, topic.out, "out", view)),
  ];
  const about = `Checkpoint of ${clock(checkpoint.at)} (${bytes(checkpoint.bytes)}, written in ${seconds(checkpoint.duration_ms / 1e3)})`;
  fill(document.getElementById("ledger"), [
    node("h2", ["Nothing lost, nothing counted twice"]),
    node("p", [about], "muted"),
    node("ul", lines, "ledger"),
  ]);
}

function line(name, whole, word, parts, replayed = {}) {
  const entries = Object.entries(parts);
  const balances = entries.reduce((sum, [, n]) => sum + n, 0) === whole;
  const again = (part) => (replayed[part] ? [" (", node("b", [count(replayed[part])]), " replayed)"] : []);
  const sum = entries.flatMap(([part, n], i) => [i ? " + " : "", node("b", [count(n)]), ` ${part}`, ...again(part)]);
  const li = node("li", [
    node("h3", [node("i", [], "mark"), name, " ", node("span", [balances ? "balances" : "does not balance"], "sr")]),
    node("p", [node("b", [count(whole)]), ` ${word} = `, ...sum]),
  ]);
  li.dataset.state = balances ? "ok" : "failing";
  return li;
}

/** What an empty chart waits for. */
export function waitsFor(model, view) {
  const status = model.status;
  if (!status || status.state === "starting") return "Waiting for the pipeline to start.";
  if (inactive(status)) return `${capital(status.state)}: ${status.detail}.`;
  const broken = status.stages.find((stage) => stage.state === "failing");
  if (broken) return `Waiting: ${broken.name} fails${broken.detail ? ` (${broken.detail})` : ""} and is being retried.`;
  const source = status.source;
  if (source && source.records_total === 0) return `Waiting for the first record from the ${source.kind} source.`;
  if (view.suppressed > 0) return "Waiting for a group that is large enough to be shown.";
  return `Waiting for the first rows of ${view.name}.`;
}

function capital(word) {
  return word.charAt(0).toUpperCase() + word.slice(1);
}

/** Replaces children only where something changed: keeps selections, spares work. */
function fill(root, children) {
  const html = children.map((child) => child.outerHTML).join("");
  if (root.dataset.shown === String(hash(html))) return;
  root.dataset.shown = String(hash(html));
  root.replaceChildren(...children);
}

function hash(text) {
  let h = 0;
  for (let i = 0; i < text.length; i += 1) h = (Math.imul(h, 31) + text.charCodeAt(i)) | 0;
  return h;
}

function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function node(name, children, className) {
  const element = document.createElement(name);
  if (className) element.className = className;
  element.append(...children);
  return element;
}
