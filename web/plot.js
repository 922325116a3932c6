// The only file that calls the chart library (Plotly). Another one could replace it here.
//
// Always: a drawing is described by plain data; what was really drawn can be read back from
// `data-drawn` of the element. Never animated, never sent anywhere.

const FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif';

/** Resolves to whether the chart code is there. */
export const ready = new Promise((resolve) => {
  if (window.Plotly) return resolve(true);
  const script = document.getElementById("plotly");
  script.addEventListener("load", () => resolve(Boolean(window.Plotly)));
  script.addEventListener("error", () => resolve(false));
  // It may have come between the two looks.
  if (window.Plotly) resolve(true);
});

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

export class Plot {
  #element;
  #draw = null;
  #width = 0;

  constructor(element) {
    this.#element = element;
    new ResizeObserver(() => {
      const width = element.clientWidth;
      if (this.#draw && width && width !== this.#width) this.#show();
    }).observe(element);
  }

  /**
   * Horizontal bars, the first on top.
   * `bars` = [{ label, value, text, hover, kind: "plain" | "other" | "unknown" }]
   */
  setBars(bars) {
    this.#set(() => {
      // Places are numbers and labels are put there: so two labels may be alike, and "007" stays text.
      const places = bars.map((_, i) => i);
      const most = Math.max(0, ...bars.map((bar) => bar.value));
      const least = Math.min(0, ...bars.map((bar) => bar.value));
      // Room for the numbers at the bars' ends: about eight pixels a digit.
      const digits = Math.max(...bars.map((bar) => bar.text.length));
      const room = 1 + (digits * 8 + 10) / Math.max(this.#element.clientWidth * 0.68, 80);
      const fill = { plain: colour("--accent"), other: colour("--muted-bar"), unknown: colour("--muted-bar") };
      const trace = {
        type: "bar",
        orientation: "h",
        x: bars.map((bar) => bar.value),
        y: places,
        marker: {
          color: bars.map((bar) => fill[bar.kind]),
          pattern: {
            shape: bars.map((bar) => (bar.kind === "unknown" ? "/" : "")),
            fgcolor: colour("--card"),
            size: 6,
          },
        },
        text: bars.map((bar) => bar.text),
        textposition: "outside",
        textfont: { color: colour("--text"), size: 12 },
        cliponaxis: false,
        hovertext: bars.map((bar) => bar.hover),
        hovertemplate: "%{hovertext}<extra></extra>",
      };
      const layout = this.#layout({
        bargap: 0.28,
        margin: { l: 8, r: 8, t: 4, b: 4 },
        xaxis: {
          visible: false,
          range: [least * room, most > 0 ? most * room : 1],
          fixedrange: true,
        },
        yaxis: {
          automargin: true,
          // Few bars stay slim and on top.
          range: [Math.max(bars.length, Math.floor(this.#element.clientHeight / 40)) - 0.5, -0.5],
          tickvals: places,
          ticktext: bars.map((bar) => `${escape(bar.label)}  `),
          tickfont: { color: colour("--text"), size: 12 },
          showgrid: false,
          zeroline: false,
          fixedrange: true,
        },
      });
      const drawn = bars.map((bar) => [bar.label, bar.value]);
      return { trace, layout, drawn };
    });
  }

  /**
   * A line. `points` = [{ x, y, hover, open }], in order; open ones may still change.
   * `axis` = { time: bool, step: distance of points in milliseconds, if known }.
   */
  setLine(points, axis) {
    this.#set(() => {
      const line = colour("--accent");
      const few = points.length <= 90;
      const trace = {
        type: "scatter",
        mode: few ? "lines+markers" : "lines",
        x: points.map((point) => point.x),
        y: points.map((point) => point.y),
        line: { color: line, width: 2 },
        marker: {
          size: points.length <= 40 ? 6 : 4,
          color: points.map((point) => (point.open ? colour("--card") : line)),
          line: { color: line, width: 2 },
        },
        hovertext: points.map((point) => point.hover),
        hovertemplate: "%{hovertext}<extra></extra>",
      };
      const [low, high] = around(points.map((point) => point.y));
      const faint = { color: colour("--muted"), size: 11 };
      const layout = this.#layout({
        margin: { l: 8, r: 14, t: 8, b: 8 },
        xaxis: {
          type: axis.time ? "date" : "linear",
          range: axis.time && axis.step ? span(points, axis.step) : undefined,
          automargin: true,
          nticks: this.#element.clientWidth < 420 ? 4 : 7,
          tickangle: 0,
          showgrid: false,
          linecolor: colour("--line"),
          tickfont: faint,
          fixedrange: true,
        },
        yaxis: {
          automargin: true,
          nticks: 5,
          range: [low, high],
          gridcolor: colour("--line"),
          zeroline: false,
          tickfont: faint,
          fixedrange: true,
        },
      });
      const drawn = points.map((point) => [point.x, point.y]);
      return { trace, layout, drawn };
    });
  }

  /** Draws again in the colours of the theme that is set now. */
  theme() {
    if (this.#draw) this.#show();
  }

  /** A picture (PNG data URL) with title and time. */
  toPng(title, note) {
    const { trace, layout } = this.#draw();
    const height = Math.max(500, Math.round(this.#element.clientHeight * 1.25));
    const titled = {
      ...layout,
      width: 1200,
      height: height + 70,
      margin: { ...layout.margin, t: 72, l: 24, r: 40, b: 24 },
      paper_bgcolor: colour("--card"),
      title: {
        text: `${escape(title)}<br><span style="font-size:13px">${escape(note)}</span>`,
        x: 0.02,
        xanchor: "left",
        font: { size: 20, color: colour("--text"), family: FONT },
      },
    };
    const options = { format: "png", width: 1200, height: height + 70 };
    return window.Plotly.toImage({ data: [trace], layout: titled }, options);
  }

  #set(draw) {
    this.#draw = draw;
    this.#show();
  }

  #show() {
    const { trace, layout, drawn } = this.#draw();
    const element = this.#element;
    this.#width = element.clientWidth;
    if (!this.#width) return;
    const config = { displayModeBar: false, responsive: false, showTips: false };
    window.Plotly.react(element, [trace], layout, config).then(() => {
      const marks = element.querySelectorAll("g.trace .point").length;
      element.dataset.marks = String(marks);
      if (drawn.length <= 100) element.dataset.drawn = JSON.stringify(drawn);
      else element.dataset.drawn = JSON.stringify(drawn.slice(-100));
    });
  }

  #layout(more) {
    return {
      autosize: false,
      width: this.#element.clientWidth,
      height: this.#element.clientHeight,
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: FONT, size: 12, color: colour("--text") },
      showlegend: false,
      dragmode: false,
      hoverlabel: {
        bgcolor: colour("--card"),
        bordercolor: colour("--line"),
        font: { color: colour("--text"), family: FONT, size: 13 },
      },
      ...more,
    };
  }
}

/** The range of an axis around values: some air, and no drama where they hardly differ. */
function around(values) {
  const low = Math.min(...values);
  const high = Math.max(...values);
  const air = Math.max((high - low) * 0.15, Math.abs(high) * 0.02, 1e-9);
  return [low - air, high + air];
}

/** The time shown: all points, and at least a few steps, so that one point is no axis of microseconds. */
function span(points, step) {
  const first = Date.parse(points[0].x);
  const last = Date.parse(points.at(-1).x);
  const air = Math.max(step * 0.5, (last - first) * 0.02, (step * 6 - (last - first)) / 2);
  return [first - air, last + air].map((ms) => new Date(ms).toISOString());
}

/** Plotly reads a little markup in its texts; labels are data and have none. */
const escape = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
