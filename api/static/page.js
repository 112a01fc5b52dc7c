// The chat page: sends a message, shows its answer as it grows. The address holds the message's id,
// so a reload, or the way back, shows it again from its start.

import { Message } from "./fold.js";
import { addressOf, cancel, models, send } from "./server.js";
import { Tail } from "./tail.js";

const STATES = {
  idle: "nothing sent yet",
  sending: "sending",
  connecting: "connecting",
  live: "live",
  reconnecting: "reconnecting",
  ended: "ended",
  failed: "failed",
  gone: "this message is not known any more",
};
const ID = /^#[0-9a-f-]{36}$/;

const at = (id) => document.getElementById(id);
const answer = at("answer").appendChild(new Text());
const reasoning = at("reasoning").appendChild(new Text());

let tail = null;
let message = null;
let shownId = null;
let atBottom = true;
let scrolling = false;
let retrying = false; // the state line says so

function showState(name, more = "") {
  at("state").dataset.state = name;
  at("state").textContent = more ? `${STATES[name]}: ${more}` : STATES[name];
  const running = ["connecting", "live", "reconnecting"].includes(name);
  at("stop").disabled = !running;
  at("send").disabled = running || name === "sending";
}

function showNote(sentence) {
  at("note").textContent = sentence;
  at("note").hidden = !sentence;
}

function show(id) {
  tail?.close();
  shownId = id;
  message = new Message();
  answer.data = "";
  reasoning.data = "";
  showNote("");
  at("message").hidden = false;
  at("thinking").hidden = true;
  const question = remembered(id);
  at("question").textContent = question;
  at("question").hidden = !question;
  let end = null;
  tail = new Tail(addressOf(id), {
    event(eventId, name, data) {
      take(eventId, name, data);
      end = { name, data };
    },
    state(name) {
      if (name === "ended") {
        showEnd(end.name, end.data);
      } else {
        showState(name);
      }
    },
  });
}

function take(id, name, data) {
  const replaced = message.add(id, name, data);
  if (message.gap) {
    tail.startOver();
  } else if (replaced) {
    answer.data = message.joined("text");
    reasoning.data = message.joined("reasoning");
  } else if (name === "text") {
    answer.appendData(data.text);
  } else if (name === "reasoning") {
    at("thinking").hidden = false;
    reasoning.appendData(data.text);
  }
  if (name === "retry") {
    showState("live", `the provider is asked again in ${data.in_seconds} s (${data.reason})`);
  } else if (retrying) {
    showState("live");
  }
  retrying = name === "retry";
  followDown();
}

function showEnd(name, data) {
  if (name === "failed") {
    showState("failed", data.code);
    showNote(`${data.message}${data.retryable ? " Sending it again may help." : ""}`);
  } else {
    showState("ended", data.finish_reason === "stop" ? "" : data.finish_reason);
  }
}

// Keeps the newest line in view unless the reader has scrolled away. Once a frame: to measure the
// page at each event would lay it out at each event, 20 s for an answer of 10,000.
function followDown() {
  if (scrolling || !atBottom) {
    return;
  }
  scrolling = true;
  requestAnimationFrame(() => {
    scrolling = false;
    document.scrollingElement.scrollTop = document.scrollingElement.scrollHeight;
  });
}

function noteScroll() {
  const page = document.scrollingElement;
  atBottom = page.scrollHeight - page.scrollTop - page.clientHeight < 80;
}

async function submit() {
  const input = at("input").value;
  const model = at("model").value.trim();
  if (at("send").disabled || !input.trim() || !model) {
    return;
  }
  tail?.close();
  showNote("");
  showState("sending");
  try {
    const id = await send(model, input);
    remember(id, input);
    remember("model", model);
    at("input").value = "";
    location.hash = id; // hashchange shows it
  } catch (error) {
    showState("failed", "not sent");
    showNote(error.message);
  }
}

async function stop() {
  at("stop").disabled = true;
  const id = shownId;
  try {
    await cancel(id);
  } catch (error) {
    if (id === shownId) {
      at("stop").disabled = false;
      showNote(`Not stopped: ${error.message}`);
    }
  }
}

function showAddressed() {
  if (ID.test(location.hash)) {
    show(location.hash.slice(1));
    return;
  }
  tail?.close();
  at("message").hidden = true;
  showNote("");
  showState("idle");
}

async function fillModels() {
  at("model").value = remembered("model") || "demo/echo";
  try {
    const options = (await models()).map((model) => new Option(model.id, model.id));
    at("models").replaceChildren(...options);
  } catch {
    // The picker takes any name without them.
  }
}

// What was asked, kept for a reload; a browser that stores nothing shows the answer alone.
function remember(name, value) {
  try {
    sessionStorage.setItem(`rejoin:${name}`, value);
  } catch {
    // full, or forbidden
  }
}

function remembered(name) {
  try {
    return sessionStorage.getItem(`rejoin:${name}`) ?? "";
  } catch {
    return "";
  }
}

at("form").addEventListener("submit", (event) => {
  event.preventDefault();
  submit();
});
at("input").addEventListener("keydown", (event) => {
  // While an input method composes, Enter chooses a word.
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    submit();
  }
});
at("stop").addEventListener("click", stop);
addEventListener("hashchange", showAddressed);
addEventListener("scroll", noteScroll, { passive: true });
addEventListener("pageshow", (event) => {
  if (event.persisted) {
    showAddressed(); // brought back from the cache, its connection is gone
  }
});
fillModels();
showAddressed();
