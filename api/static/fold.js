// Folds a message's events to what stands of it: what a `reset` takes back is forgotten.

export class Message {
  kept = []; // {id, name, data}; a position_unknown's `reset` has no id
  gap = false; // a `reset` named an event that is not here: read again from the start
  calls = new Map(); // the tools' calls by their ids, in the order in which the model asked
  reports = new Map(); // the newest value of each name that an agent reported, of no call

  // Takes the next event. Returns whether what stood before may be gone.
  add(id, name, data) {
    const replaces = name === "start" || name === "reset";
    if (name === "start") {
      this.kept = [];
      this.gap = false;
    } else if (name === "reset") {
      this.#takeBack(id, data.after);
    }
    if (replaces) {
      this.calls.clear();
      this.reports.clear();
      this.kept.forEach((event) => this.#note(event));
    }
    this.kept.push({ id, name, data });
    this.#note({ name, data });
    return replaces;
  }

  #takeBack(id, after) {
    if (id === null) {
      this.kept = [];
    } else if (after === null) {
      this.kept = this.kept.filter((event) => event.name === "start");
    } else {
      const last = this.kept.findIndex((event) => event.id === after);
      this.gap = last === -1;
      this.kept.length = last + 1;
    }
  }

  // Goes on with the call that an event is of.
  #note({ name, data }) {
    const call = this.calls.get(data.tool_call_id);
    if (name === "tool_call") {
      this.calls.set(data.tool_call_id, {
        id: data.tool_call_id,
        name: data.name,
        arguments: data.arguments,
        needs: null, // what it waits for: approval or result
        asked: 0, // how often it waited
        started: false,
        again: false, // asked for after it had begun: its worker was lost
        reports: new Map(),
        ended: null, // {result} or {error}
      });
    } else if (name === "data") {
      (call ?? this).reports.set(data.name, data.value);
    } else if (name === "tool_waiting" && call) {
      const again = call.again || call.started;
      Object.assign(call, { needs: data.needs, asked: call.asked + 1, started: false, again });
    } else if (name === "tool_start" && call) {
      Object.assign(call, { needs: null, started: true });
    } else if (name === "tool_result" && call) {
      call.ended = { result: data.result };
    } else if (name === "tool_error" && call) {
      call.ended = { error: data.error };
    }
  }

  // The model that answers now, where it is not the one that was asked; else "".
  get fellBackTo() {
    const asked = this.kept.find((event) => event.name === "start")?.data.model;
    const model = this.kept.findLast((event) => event.name === "reset")?.data.model;
    return model && model !== asked ? model : "";
  }

  // The calls that are not over.
  get open() {
    return [...this.calls.values()].filter((call) => call.ended === null);
  }

  // The joined `text` of the events of one name, `text` or `reasoning`.
  joined(name) {
    return this.kept.filter((event) => event.name === name).map((event) => event.data.text).join("");
  }
}
