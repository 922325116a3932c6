// The chart cards: from a view's rows to bars, lines, sentences and tables.

import { Plot, ready } from "./plot.js";
import { count, isNumber, measured, plural, shown, words } from "./text.js";

const FOLDED = "other";
const BARS_MAX = 30;
const POINTS_MAX = 600;
const TABLE_ROWS_MAX = 200;
const LABEL_MAX = 26;
const SUMMARY_EVERY_MS = 10000;

export class Card {
  #root;
  #plot = null;
  #view = null;
  #summaryAt = -Infinity;
  #version = null;

  constructor(root) {
    this.#root = root;
    const { view, type, x, y, top, title } = root.dataset;
    this.view = view;
    this.spec = { type, x, y, top: top ? Number(top) : BARS_MAX, title };
    const details = this.#part("details");
    details.open = false;
    details.addEventListener("toggle", () => this.#table());
    this.#part(".png").addEventListener("click", () => this.#png());
    ready.then((there) => {
      if (there) {
        this.#plot = new Plot(this.#part(".plot"));
        this.#version = null;
        if (this.#view) this.show(this.#view, null);
      } else {
        this.#part(".plot").hidden = true;
        this.#say(".foot", "The chart code could not be loaded: the numbers are in the table.");
        details.open = true;
      }
    });
  }

  /** Shows the newest rows; `why` is what an empty chart waits for. */
  show(view, why) {
    this.#view = view;
    const empty = view.rows.size === 0;
    const note = this.#part(".empty");
    note.hidden = !empty;
    this.#part(".plot").hidden = empty;
    if (empty && why) note.textContent = why;
    if (this.#version === view.version || empty) return;
    this.#version = view.version;
    const x = view.columns.find((column) => column.name === this.spec.x);
    const y = view.columns.find((column) => column.name === this.spec.y);
    if (!x || !y) return;
    if (this.spec.type === "line") this.#line(view, x, y);
    else this.#bars(view, x, y);
    this.#part(".png").disabled = !this.#plot;
    this.#table();
  }

  theme() {
    this.#plot?.theme();
  }

  #bars(view, x, y) {
    const rows = [...view.rows.values()].filter((row) => number(row[y.name]) !== null);
    const folded = rows.filter((row) => row._key === FOLDED);
    const named = rows.filter((row) => row._key !== FOLDED);
    const value = (row) => number(row[y.name]);
    named.sort((a, b) => value(b) - value(a) || String(a[x.name]).localeCompare(String(b[x.name])));
    const drawn = [...named.slice(0, this.spec.top), ...folded];
    // A share means something for what is counted, and of averages there is none.
    const total = y.type === "bigint" ? rows.reduce((sum, row) => sum + value(row), 0) : 0;
    const share = (row) => (total > 0 ? ` (${percent(value(row) / total)})` : "");
    const bars = drawn.map((row) => {
      const kind = row._key === FOLDED ? "other" : row[x.name] === null ? "unknown" : "plain";
      const label = kind === "other" ? "other" : shown(row[x.name], x);
      const what = kind === "other" ? "other: groups too small to show, together" : label;
      const number = measured(value(row), y);
      return {
        kind,
        label: short(label),
        value: value(row),
        text: number,
        hover: `${what}<br>${number} ${words(y.name)}${share(row)}`,
      };
    });
    this.#plot?.setBars(bars);
    const only = named.length === 1 && folded.length === 0 ? named[0] : null;
    const sentence = this.#part(".sentence");
    sentence.hidden = !only;
    if (only) {
      const whole = total > 0 ? `, 100 % of ${measured(total, y)} ${words(y.name)}` : `, ${measured(value(only), y)}`;
      sentence.textContent = `1 ${words(x.name)}: ${shown(only[x.name], x)}${whole}`;
    }
    const more = named.length + view.hidden - Math.min(named.length, this.spec.top);
    const parts = [plural(named.length + view.hidden, "group")];
    if (more > 0) parts.push(`${count(more)} more in the table`);
    this.#foot(view, parts);
    const first = drawn.slice(0, 3).map((row) => `${shown(row[x.name], x)} ${measured(value(row), y)}`);
    this.#summary(`${this.spec.title}: ${plural(named.length, "bar")}, largest ${first.join(", ")}.`);
  }

  #line(view, x, y) {
    const time = x.type === "timestamp" || x.type === "date";
    const place = (row) => (time ? Date.parse(row[x.name]) : number(row[x.name]));
    const rows = [...view.rows.values()].filter(
      (row) => row._key !== FOLDED && row[x.name] !== null && number(row[y.name]) !== null,
    );
    rows.sort((a, b) => place(a) - place(b));
    const closed = view.watermark === null ? -Infinity : Date.parse(view.watermark);
    const points = rows.slice(-POINTS_MAX).map((row) => {
      const open = time && view.windowSeconds !== null && place(row) + view.windowSeconds * 1e3 > closed;
      const others = view.columns
        .filter((column) => column.name !== x.name && column.name !== y.name && !column.key)
        .map((column) => `<br>${shown(row[column.name], column)} ${words(column.name)}`);
      const more = open ? "<br>still filling" : "";
      return {
        x: row[x.name],
        y: number(row[y.name]),
        open,
        hover: `${shown(row[x.name], x)}<br>${measured(number(row[y.name]), y)} ${words(y.name)}${others.join("")}${more}`,
      };
    });
    if (points.length > 0) {
      const step = view.windowSeconds === null ? null : view.windowSeconds * 1e3;
      this.#plot?.setLine(points, { time, step });
    }
    const parts = [plural(rows.length + view.hidden, view.windowSeconds ? "window" : "point")];
    if (rows.length > POINTS_MAX) parts.push(`the newest ${POINTS_MAX} are drawn`);
    if (points.some((point) => point.open)) parts.push("hollow: still filling");
    this.#foot(view, parts);
    const last = points.at(-1);
    if (last) {
      const at = shown(last.x, x);
      this.#summary(`${this.spec.title}: ${plural(points.length, "point")}, the newest ${measured(last.y, y)} at ${at}.`);
    }
  }

  #foot(view, parts) {
    const n = view.suppressed;
    if (n > 0) parts.push(`${plural(n, "small group")} ${n === 1 ? "is" : "are"} folded or held back`);
    this.#say(".foot", parts.join(" · "));
  }

  /** For those who hear the page: not with every redraw. */
  #summary(text) {
    const now = performance.now();
    if (now - this.#summaryAt < SUMMARY_EVERY_MS) return;
    this.#summaryAt = now;
    this.#part(".plot").setAttribute("aria-label", text);
  }

  /** The table, as long as somebody looks at it. */
  #table() {
    const details = this.#part("details");
    const view = this.#view;
    if (!details.open || !view) return;
    const head = element("tr", view.columns.map((column) => cell("th", words(column.name), column)));
    let rows = [...view.rows.values()];
    const y = this.spec.y;
    if (this.spec.type === "line") rows.sort((a, b) => (a[this.spec.x] < b[this.spec.x] ? 1 : -1));
    else rows.sort((a, b) => (a._key === FOLDED) - (b._key === FOLDED) || number(b[y]) - number(a[y]));
    const hidden = rows.length + view.hidden - Math.min(rows.length, TABLE_ROWS_MAX);
    const body = rows.slice(0, TABLE_ROWS_MAX).map((row) => {
      const line = element("tr", view.columns.map((column) => cell("td", shown(row[column.name], column), column)));
      if (row._key === FOLDED) line.className = "folded";
      return line;
    });
    const table = element("table", [element("thead", [head]), element("tbody", body)]);
    const scroll = element("div", [table]);
    scroll.className = "scroll";
    const parts = [details.querySelector("summary"), scroll];
    if (hidden > 0) {
      const more = element("p", [`and ${count(hidden)} more, in the CSV`]);
      more.className = "foot";
      parts.push(more);
    }
    const at = details.querySelector(".scroll")?.scrollTop ?? 0;
    details.replaceChildren(...parts);
    scroll.scrollTop = at;
  }

  async #png() {
    const now = new Date().toISOString().slice(0, 19).replace("T", " ");
    const link = document.createElement("a");
    link.href = await this.#plot.toPng(this.spec.title, `falaj · ${now} UTC`);
    link.download = `${this.view} ${now.replaceAll(":", "-")}.png`;
    link.click();
  }

  #say(part, text) {
    const element = this.#part(part);
    if (element.textContent !== text) element.textContent = text;
  }

  #part(selector) {
    return this.#root.querySelector(selector);
  }
}

/** Numbers beyond 2^53 and decimals come as text; NaN as null. */
function number(value) {
  const n = typeof value === "string" ? Number(value) : value;
  return typeof n === "number" && Number.isFinite(n) ? n : null;
}

const percent = (share) => `${(share * 100).toFixed(share < 0.1 ? 1 : 0)} %`;

const short = (label) => (label.length > LABEL_MAX ? `${label.slice(0, LABEL_MAX - 1)}…` : label);

function element(name, children) {
  const node = document.createElement(name);
  node.append(...children);
  return node;
}

function cell(name, text, column) {
  const node = element(name, [text]);
  if (isNumber(column)) node.className = "n";
  return node;
}
