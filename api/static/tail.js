// Tails one message by a plain EventSource, and begins a new one where the browser gave up.

const NAMES = [
  "start", "reset", "text", "reasoning", "tool_call", "tool_waiting", "tool_start", "data",
  "tool_result", "tool_error", "step", "retry", "usage", "done", "failed",
];
const FIRST_WAIT = 500; // milliseconds, doubling
const LONGEST_WAIT = 10_000;
const QUIET = 45_000; // milliseconds: the server comments every 15 s, which a page is not shown

export class Tail {
  #address;
  #heard;
  #source = null;
  #last = null; // the last event's id: where a new EventSource goes on
  #failures = 0;
  #gapAt = null; // the last `reset` whose event was not here
  #gaps = 0; // how often in a row
  #timer = 0;
  #watch = 0;
  #looked = null; // the last event's id when it was looked after
  #closed = false;

  // `address`: the message's own. `heard.event(id, name, data)`: each event once, in order;
  // `heard.state(name)`: connecting, live, reconnecting, ended or gone (no such message).
  constructor(address, heard) {
    this.#address = address;
    this.#heard = heard;
    this.#heard.state("connecting");
    this.#open();
    this.#watch = setInterval(() => this.#look(), QUIET);
  }

  close() {
    this.#closed = true;
    clearTimeout(this.#timer);
    clearInterval(this.#watch);
    this.#source?.close();
  }

  // Comes back without a position: what a gap asks for. In no haste where that has not filled it.
  startOver() {
    this.#source?.close();
    this.#source = null;
    this.#gaps = this.#last === this.#gapAt ? this.#gaps + 1 : 0;
    this.#gapAt = this.#last;
    this.#last = null;
    if (this.#gaps > 0) {
      this.#heard.state("reconnecting");
      this.#wait(this.#gaps);
      return;
    }
    this.#heard.state("connecting");
    this.#open();
  }

  #open() {
    // A new EventSource cannot be given the header; on its own reconnects the header wins.
    const query = this.#last === null ? "" : `?last_event_id=${this.#last}`;
    const source = new EventSource(`${this.#address}/events${query}`);
    this.#source = source;
    source.onopen = () => this.#heard.state("live");
    source.onerror = () => this.#dropped(source);
    for (const name of NAMES) {
      source.addEventListener(name, (event) => this.#take(source, name, event));
    }
  }

  #take(source, name, event) {
    if (source !== this.#source || this.#closed) {
      return; // was already on its way when a new one began
    }
    const data = JSON.parse(event.data);
    // The one frame without an id: its lastEventId is an older event's.
    const unknown = name === "reset" && data.reason === "position_unknown";
    const id = unknown ? null : event.lastEventId;
    if (id !== null && this.#last !== null && !later(id, this.#last)) {
      return;
    }
    this.#last = id;
    this.#failures = 0;
    if (name === "done" || name === "failed") {
      this.close();
    }
    this.#heard.event(id, name, data);
    if (this.#closed) {
      this.#heard.state("ended");
    }
  }

  #dropped(source) {
    if (source !== this.#source || this.#closed) {
      return;
    }
    this.#heard.state("reconnecting");
    if (source.readyState === EventSource.CLOSED) {
      // A proxy's 502, say: the browser does not come back by itself.
      this.#wait(this.#failures);
      this.#failures += 1;
    }
  }

  #wait(failures) {
    const most = Math.min(FIRST_WAIT * 2 ** failures, LONGEST_WAIT);
    this.#timer = setTimeout(() => this.#again(), most * (0.5 + Math.random() / 2));
  }

  // A connection that stalls behind a proxy stays open and says nothing: where there are events that
  // it does not bring, another one does.
  async #look() {
    const [source, last] = [this.#source, this.#last];
    const quiet = last === this.#looked;
    this.#looked = last;
    if (!quiet || !source || source.readyState === EventSource.CLOSED) {
      return;
    }
    const more = await this.#hasMore(last);
    if (more && source === this.#source && last === this.#last && !this.#closed) {
      source.close();
      this.#heard.state("reconnecting");
      this.#open();
    }
  }

  async #hasMore(last) {
    const query = last === null ? "" : `&last_event_id=${last}`;
    const headers = { Accept: "application/json" };
    const signal = AbortSignal.timeout(LONGEST_WAIT);
    try {
      const address = `${this.#address}/events?limit=1${query}`;
      const response = await fetch(address, { headers, cache: "no-store", signal });
      return response.ok && (await response.json()).events.length > 0;
    } catch {
      return false;
    }
  }

  async #again() {
    if (await this.#isGone()) {
      this.close();
      this.#heard.state("gone");
    } else if (!this.#closed) {
      this.#open();
    }
  }

  // An EventSource does not tell a 404 from a server that is away.
  async #isGone() {
    try {
      const signal = AbortSignal.timeout(LONGEST_WAIT);
      const response = await fetch(this.#address, { method: "HEAD", cache: "no-store", signal });
      return response.status === 404;
    } catch {
      return false;
    }
  }
}

// Whether event id `one` comes after `other`.
function later(one, other) {
  const [attempt, sequence] = one.split("-").map(Number);
  const [otherAttempt, otherSequence] = other.split("-").map(Number);
  return attempt > otherAttempt || (attempt === otherAttempt && sequence > otherSequence);
}
