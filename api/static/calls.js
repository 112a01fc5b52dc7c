// A message's tool calls, drawn as they go on, with the controls of those that wait for an answer.

// All but tab, line feed and the joiners that letters and emoji are made with.
const INVISIBLE = /(?![\t\n\u200c\u200d])[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu;
const LONGEST = 200; // characters of a value that are shown without being asked for

export class Calls {
  #list;
  #answer;
  #views = new Map();

  // `answer(callId, body)` gives the server an answer, and throws where it was not taken.
  constructor(list, answer) {
    this.#list = list;
    this.#answer = answer;
  }

  // Shows these calls and no others.
  replace(calls) {
    for (const [id, view] of this.#views) {
      if (!calls.has(id)) {
        view.element.remove();
        this.#views.delete(id);
      }
    }
    calls.forEach((call) => this.show(call));
    this.#list.hidden = calls.size === 0;
  }

  // Shows how far a call has come. What is being typed for another one is left alone.
  show(call) {
    let view = this.#views.get(call.id);
    if (!view) {
      view = new View((body) => this.#answer(call.id, body), () => this.#next());
      this.#views.set(call.id, view);
      this.#list.append(view.element);
      this.#list.hidden = false;
    }
    view.show(call);
  }

  // Where a control that had the focus is gone: the next one, for the keyboard's sake.
  #next() {
    return this.#list.querySelector("form:not([hidden]) :is(input, button)");
  }
}

// The element of a call that is over, of an earlier message as the server tells it.
export function drawn({ name, arguments: given, result, error }) {
  const view = new View();
  const ended = error === null || error === undefined ? { result } : { error };
  view.show({ name, arguments: given, reports: new Map(), ended });
  return view.element;
}

// What was reported, in one line.
export function reported(reports) {
  return [...reports].map(([name, value]) => `${name}: ${short(value)}`).join(" · ");
}

// What a call needs, in words.
function wanted({ needs, again }) {
  if (needs !== "approval") {
    return "needs a result from you";
  }
  const unknown = "; it had begun when its worker was lost, and what it did is unknown";
  return again ? `needs your approval to run again${unknown}` : "needs your approval";
}

class View {
  element = make("li", "call");
  #details = make("details");
  #name = make("code");
  #state = make("span");
  #given = make("pre", "", "Arguments");
  #outcome = make("pre", "", "What it gave");
  #line = make("p");
  #note = make("p", "bad");
  #controls = make("form", "row");
  #summary = make("summary");
  #answer;
  #next;
  #call = null;
  #offered = 0; // the `asked` that the controls are for
  #answered = 0; // the `asked` that has its answer, given here or elsewhere

  // `answer(body)` gives an answer, `next()` is the control of the next call that waits.
  constructor(answer, next) {
    this.#answer = answer;
    this.#next = next;
    this.#note.setAttribute("role", "alert");
    this.#controls.hidden = true;
    this.#summary.append(this.#name, " ", this.#state);
    this.#details.append(this.#summary, this.#given, this.#outcome);
    this.element.append(this.#details, this.#line, this.#controls, this.#note);
  }

  show(call) {
    this.#call = call;
    this.#name.textContent = escaped(call.name);
    this.#given.textContent = whole(call.arguments);
    this.#outcome.hidden = !call.ended;
    this.#outcome.textContent = call.ended ? whole(given(call)) : "";
    this.#line.textContent = call.ended ? short(given(call)) : reported(call.reports);
    if (this.#asks && call.asked !== this.#offered) {
      this.#offered = call.asked;
      this.#offer();
      this.#note.textContent = "";
      this.#details.open = true; // what is consented to is in sight
    }
    if (!this.#asks) {
      this.#note.textContent = "";
    }
    this.#showState();
  }

  get #asks() {
    return Boolean(this.#call.needs) && !this.#call.ended;
  }

  get #waits() {
    return this.#asks && this.#call.asked !== this.#answered;
  }

  #showState() {
    if (!this.#waits && !this.#controls.hidden) {
      const focused = this.#controls.contains(document.activeElement);
      this.#details.open = false;
      this.#controls.hidden = true;
      if (focused) {
        this.#moveOn();
      }
    } else if (this.#waits) {
      this.#controls.hidden = false;
    }
    const [state, words] = this.#stateOf(this.#call);
    this.element.dataset.state = state;
    this.#state.textContent = words;
  }

  #moveOn() {
    (this.#next() ?? this.#summary).focus();
  }

  #stateOf(call) {
    if (call.ended) {
      return "error" in call.ended ? ["failed", "failed"] : ["done", "returned"];
    }
    if (call.needs) {
      return this.#waits ? ["waiting", wanted(call)] : ["answered", "is answered"];
    }
    return ["running", call.started ? "runs" : "is asked for"];
  }

  // Makes the controls that answer the call.
  #offer() {
    const name = escaped(this.#call.name);
    this.#controls.onsubmit = (event) => event.preventDefault();
    if (this.#call.needs === "approval") {
      this.#controls.replaceChildren(
        button("Approve", name, () => this.#send({ approve: true })),
        button("Refuse", name, () => this.#send({ approve: false })),
      );
      return;
    }
    const field = make("input", "", `Result of ${name}, as JSON`);
    field.placeholder = "result, as JSON";
    const send = button("Send result", name, () => this.#sendResult(field.value));
    this.#controls.onsubmit = (event) => {
      event.preventDefault();
      send.click();
    };
    const fail = button("Send as error", name, () => this.#send({ error: field.value }));
    this.#controls.replaceChildren(field, send, fail);
  }

  #sendResult(text) {
    try {
      return this.#send({ result: JSON.parse(text) });
    } catch {
      this.#note.textContent = "This is no JSON. A text wants quotes of its own.";
      return undefined;
    }
  }

  async #send(body) {
    const { asked } = this.#call;
    const pressed = document.activeElement;
    this.#note.textContent = "";
    this.#disable(true);
    try {
      await this.#answer(body);
      this.#answered = asked;
    } catch (error) {
      if (error.status === 409) {
        this.#answered = asked;
        this.#note.textContent = `Somebody was faster, or it is too late: ${error.message}`;
      } else {
        this.#note.textContent = `Not answered: ${error.message}`;
      }
    }
    this.#disable(false);
    this.#showState();
    if (this.#controls.contains(pressed) && document.activeElement === document.body) {
      // What is disabled loses the focus.
      if (this.#waits) {
        pressed.focus();
      } else {
        this.#moveOn();
      }
    }
  }

  #disable(busy) {
    for (const control of this.#controls.elements) {
      control.disabled = busy;
    }
  }
}

function button(words, name, act) {
  const made = make("button", "", `${words}: ${name}`);
  made.type = "button";
  made.textContent = words;
  made.addEventListener("click", act);
  return made;
}

function make(tag, kind = "", label = "") {
  const element = document.createElement(tag);
  element.className = kind;
  if (label) {
    element.setAttribute("aria-label", label);
  }
  return element;
}

function given({ ended }) {
  return "error" in ended ? ended.error : ended.result;
}

// A value as text: a text as it is, all else as JSON.
function whole(value) {
  return escaped(typeof value === "string" ? value : (JSON.stringify(value, null, 2) ?? ""));
}

function short(value) {
  const text = escaped(typeof value === "string" ? value : (JSON.stringify(value) ?? ""));
  return text.length > LONGEST ? `${text.slice(0, LONGEST)}…` : text;
}

// What cannot be seen is escaped: a turned writing direction would show other arguments than those
// that are consented to.
function escaped(text) {
  const code = (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`;
  return text.replace(INVISIBLE, (found) => found.split("").map(code).join(""));
}
