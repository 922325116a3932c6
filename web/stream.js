// The event stream: one connection, its state, and what to do when it breaks.
//
// States: connecting · live · stale (nothing came for a while) · reconnecting · stopped (the server
// said `bye`) · resting (the tab is hidden). Freshness is measured by arrival, not by clocks.

const STALE_MS = 6000;
const REST_AFTER_MS = 60000;
const RETRY_MS = 1500;

export class Stream {
  #source = null;
  #state = "connecting";
  #arrived = 0;
  #attempt = 0;
  #retry = 0;
  #rest = 0;
  #on;

  /** `on` = { snapshot(data), delta(data), status(data), state(name, attempt) } */
  constructor(url, on) {
    this.url = url;
    this.#on = on;
    document.addEventListener("visibilitychange", () => this.#visibility());
    window.addEventListener("pagehide", () => this.#close());
    window.addEventListener("pageshow", (event) => event.persisted && this.open());
    setInterval(() => this.#watch(), 1000);
  }

  /** Milliseconds since the last event. */
  get age() {
    return performance.now() - this.#arrived;
  }

  open() {
    this.#close();
    const source = new EventSource(this.url);
    this.#source = source;
    for (const name of ["snapshot", "delta", "status"]) {
      source.addEventListener(name, (event) => {
        this.#arrived = performance.now();
        this.#attempt = 0;
        this.#set("live");
        this.#on[name](JSON.parse(event.data));
      });
    }
    source.addEventListener("bye", () => {
      this.#close();
      this.#set("stopped");
      this.#again();
    });
    source.onerror = () => {
      this.#attempt += 1;
      // A server that said good-bye stays stopped until it answers again.
      if (this.#state !== "stopped") this.#set("reconnecting");
      // The browser tries again by itself, but not after an answer that is no stream.
      if (source.readyState === EventSource.CLOSED) this.#again();
    };
  }

  #again() {
    clearTimeout(this.#retry);
    this.#retry = setTimeout(() => this.open(), RETRY_MS);
  }

  #close() {
    clearTimeout(this.#retry);
    this.#source?.close();
    this.#source = null;
  }

  #set(state) {
    this.#state = state;
    this.#on.state(state, this.#attempt);
  }

  #watch() {
    if (this.#state === "live" && this.age > STALE_MS) this.#set("stale");
  }

  #visibility() {
    clearTimeout(this.#rest);
    if (document.hidden) {
      this.#rest = setTimeout(() => {
        this.#close();
        this.#set("resting");
      }, REST_AFTER_MS);
    } else if (this.#state === "resting") {
      this.#set("connecting");
      this.open();
    }
  }
}
