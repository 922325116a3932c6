// What the page knows: the newest rows of every view and the newest status.
// Always: applying the same event twice changes nothing.

const SAMPLES_MAX = 300;

export class Model {
  /** View name -> { columns, windowSeconds, rows: Map(key -> row), total, version, watermark, suppressed } */
  views = new Map();
  status = null;
  history = [];

  snapshot(data) {
    this.views = new Map(
      data.views.map((view) => [
        view.view,
        {
          name: view.view,
          columns: view.columns,
          windowSeconds: view.window_seconds,
          rows: new Map(view.rows.map((row) => [row._key, row])),
          hidden: view.rows_total - view.rows.length,
          version: view.version,
          watermark: view.watermark,
          suppressed: view.suppressed,
        },
      ]),
    );
    this.status = data.status;
    this.history = data.history;
  }

  delta(data) {
    const view = this.views.get(data.view);
    if (!view) return;
    for (const row of data.upserts) view.rows.set(row._key, row);
    for (const key of data.deletes) view.rows.delete(key);
    view.version = data.version;
    view.watermark = data.watermark;
    view.suppressed = data.suppressed;
  }

  /** A new status is also the next point of the sparklines; the same one sent again is not. */
  newStatus(status) {
    const before = this.status;
    this.status = status;
    if (before && before.at === status.at) return;
    const since = (of) => (before ? Math.max(0, of(status) - of(before)) : 0);
    this.history.push({
      in: status.source?.rate ?? 0,
      out: rowsOut(status),
      lag: status.lag.records,
      rejected: since(rejected),
      withheld: since((s) => s.withheld),
      protected: this.suppressed(),
    });
    if (this.history.length > SAMPLES_MAX) this.history.shift();
  }

  suppressed() {
    let sum = 0;
    for (const view of this.views.values()) sum += view.suppressed;
    return sum;
  }
}

export const rejected = (status) => Object.values(status.rejects).reduce((a, b) => a + b, 0);
export const rowsOut = (status) => status.sinks.reduce((sum, sink) => sum + sink.rate, 0);
