// Folds a message's events to what stands of it: what a `reset` takes back is forgotten.

export class Message {
  kept = []; // {id, name, data}; a position_unknown's `reset` has no id
  gap = false; // a `reset` named an event that is not here: read again from the start

  // Takes the next event. Returns whether text that stood before may be gone.
  add(id, name, data) {
    const replaces = name === "start" || name === "reset";
    if (name === "start") {
      this.kept = [];
      this.gap = false;
    } else if (name === "reset") {
      this.#takeBack(id, data.after);
    }
    this.kept.push({ id, name, data });
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

  // The joined `text` of the events of one name, `text` or `reasoning`.
  joined(name) {
    return this.kept.filter((event) => event.name === name).map((event) => event.data.text).join("");
  }
}
