// The chat page: sends a message, shows its answer as it grows, and goes on in its conversation. The
// address holds the conversation's id, so a reload, or the way back, shows it and its running answer.

import { Calls, reported } from "./calls.js";
import { Message } from "./fold.js";
import { followDown } from "./follow.js";
import { chosenTools, fillPicker, remember } from "./picker.js";
import { addressOf, answerTool, cancel, conversation, send } from "./server.js";
import { Tail } from "./tail.js";
import { by, draw, spent, split } from "./turns.js";

const STATES = {
  idle: "nothing sent yet",
  sending: "sending",
  connecting: "connecting",
  live: "live",
  reconnecting: "reconnecting",
  ended: "ended",
  failed: "failed",
  gone: "this message is not known any more",
  lost: "this conversation is not known any more",
};
const ADDRESS = /^#(conversation=)?([0-9a-f-]{36})$/; // one message's own address is its id

const at = (id) => document.getElementById(id);
const answer = at("answer").appendChild(new Text());
const reasoning = at("reasoning").appendChild(new Text());
const calls = new Calls(at("calls"), (callId, body) => answerTool(shownId, callId, body));

let tail = null;
let message = null;
let shownId = null;
let conversationId = null; // where the next message goes; null: into a new one
let looks = 0; // how often the page began to show something else
let waits = false; // for another message of its conversation
let remarked = false; // the state line says so, or more

function showState(name, more = "") {
  const focused = document.activeElement;
  at("state").dataset.state = name;
  at("state").textContent = more ? `${STATES[name]}: ${more}` : STATES[name];
  const running = ["connecting", "live", "reconnecting"].includes(name);
  at("stop").disabled = !running;
  at("send").disabled = running || name === "sending";
  at("stop-later").hidden = !running || !message?.open.some((call) => !call.needs);
  if (["send", "stop", "stop-later"].includes(focused?.id) && (focused.disabled || focused.hidden)) {
    at("input").focus(); // what is disabled loses the focus, and the keyboard its place
  }
}

// "live", and what is waited for.
function showLive() {
  const asks = message.open.some((call) => call.needs);
  const more = waits ? "waits for the message before it" : asks ? "waits for an answer" : "";
  remarked = more !== "";
  showState("live", more);
}

function showNote(sentence) {
  at("note").textContent = sentence;
  at("note").hidden = !sentence;
}

// Shows a message from its start. `then` is called at its end.
function show(id, question, then = () => {}) {
  tail?.close();
  shownId = id;
  message = new Message();
  answer.data = "";
  reasoning.data = "";
  showTools();
  showNote("");
  at("message").hidden = false;
  at("stop-later").disabled = false;
  at("thinking").hidden = true;
  showText("question", question);
  showText("taken-back", "");
  showText("by", "");
  showText("spent", "");
  let end = null;
  tail = new Tail(addressOf(id), {
    event(eventId, name, data) {
      take(eventId, name, data);
      end = { name, data };
    },
    state(name) {
      if (name === "ended") {
        showEnd(end.name, end.data);
        then();
      } else if (name === "live") {
        showLive();
      } else {
        showState(name);
      }
    },
  });
}

// Shows all calls and reports as they stand.
function showTools() {
  calls.replace(message.calls);
  showText("reported", reported(message.reports));
}

function showText(id, text) {
  at(id).textContent = text;
  at(id).hidden = !text;
}

async function showConversation(id) {
  const look = looks;
  showState("connecting");
  try {
    const found = split(await conversation(id));
    if (look !== looks) {
      return;
    }
    at("earlier").replaceChildren();
    found.earlier.forEach((message) => draw(at("earlier"), message));
    conversationId = id;
    waits = found.shown.status === "queued" && found.shown.attempt === 0;
    show(found.shown.id, found.question, () => {
      if (found.others) {
        showConversation(id); // somebody else's messages wait behind this one
      }
    });
  } catch (error) {
    if (look === looks) {
      const lost = error.status === 404;
      conversationId = lost ? null : id; // what is sent now still goes on in it
      showState(lost ? "lost" : "failed", lost ? "" : "not read");
      showNote(lost ? "" : error.message);
    }
  }
}

function take(id, name, data) {
  waits = false;
  const replaced = message.add(id, name, data);
  if (message.gap) {
    tail.startOver();
  } else if (replaced) {
    const text = message.joined("text");
    if (name === "start" || id === null) {
      showText("taken-back", ""); // it all comes again
    } else if (text.length < answer.data.length) {
      showText("taken-back", `text was taken back (${data.reason})`);
    }
    answer.data = text;
    reasoning.data = message.joined("reasoning");
    showTools();
  } else if (name === "text") {
    answer.appendData(data.text);
  } else if (name === "reasoning") {
    at("thinking").hidden = false;
    reasoning.appendData(data.text);
  } else if (message.calls.has(data.tool_call_id)) {
    calls.show(message.calls.get(data.tool_call_id));
    remarked = true;
  } else if (name === "data") {
    showText("reported", reported(message.reports));
  }
  if (replaced) {
    showText("by", by(message.fellBackTo));
  }
  if (name === "start") {
    conversationId = data.conversation_id ?? conversationId;
  } else if (name === "usage") {
    showText("spent", spent(data));
  }
  if (name === "retry") {
    const seconds = Math.ceil(data.in_seconds); // "within": a page that is loaded later says it too
    showState("live", `the provider is asked again within ${seconds} s (${data.reason})`);
    remarked = true;
  } else if (remarked) {
    showLive();
  }
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
    const look = looks;
    const tools = chosenTools(at("tools"));
    const accepted = await send(model, input, tools, conversationId);
    remember(at("model"), at("tools"));
    if (look !== looks) {
      return; // the reader has gone elsewhere
    }
    at("input").value = "";
    keepShown();
    conversationId = accepted.conversation_id;
    const address = `#conversation=${conversationId}`;
    if (location.hash !== address) {
      history.pushState(null, "", address);
    }
    waits = Boolean(accepted.waiting_for);
    show(accepted.message_id, input);
  } catch (error) {
    showState("failed", "not sent");
    showNote(error.message);
  }
}

// Moves what is shown to the turns before it.
function keepShown() {
  if (shownId !== null) {
    const [asked, said] = [at("question").textContent, answer.data];
    draw(at("earlier"), { role: "user", content: asked });
    const end = message.kept.at(-1);
    const failed = end?.name === "failed";
    const reason = end?.data.finish_reason ?? "stop";
    draw(at("earlier"), {
      role: "assistant",
      text: said,
      tool_calls: [...message.calls.values()].map((call) => ({ ...call, ...call.ended })),
      status: failed ? "failed" : reason === "stop" ? "done" : reason,
      error: end?.data,
      usage: message.kept.findLast((event) => event.name === "usage")?.data,
      attempts: [{ model: message.fellBackTo }],
    });
  }
}

async function stop({ currentTarget: button }) {
  button.disabled = true;
  at("input").focus();
  const id = shownId;
  try {
    await cancel(id, button === at("stop-later"));
  } catch (error) {
    if (id === shownId) {
      button.disabled = false;
      showNote(`Not stopped: ${error.message}`);
    }
  }
}

function showAddressed() {
  looks += 1;
  tail?.close();
  at("earlier").replaceChildren();
  at("message").hidden = true;
  showNote("");
  shownId = conversationId = null;
  waits = false;
  const [, isConversation, id] = ADDRESS.exec(location.hash) ?? [];
  if (isConversation) {
    showConversation(id);
  } else if (id) {
    show(id, "");
  } else {
    showState("idle");
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
at("stop-later").addEventListener("click", stop);
addEventListener("hashchange", showAddressed);
addEventListener("pageshow", (event) => {
  if (event.persisted) {
    showAddressed(); // brought back from the cache, its connection is gone
  }
});
fillPicker(at("model"), at("models"), at("tools"));
showAddressed();
