// A conversation's turns: which of them is to be tailed, and how those before it are drawn.

import { drawn } from "./calls.js";

// Of a conversation as the server tells it: the message to tail, the question that it answers, the
// messages before that, and whether others wait behind it.
export function split({ messages, active_message_id: active }) {
  let at = messages.findIndex((message) => message.id === active);
  if (at === -1) {
    at = messages.findLastIndex((message) => message.role === "assistant");
  }
  const asked = at > 0 && messages[at - 1].role === "user" ? at - 1 : at;
  return {
    shown: messages[at],
    question: asked < at ? wordsOf(messages[asked]) : "",
    earlier: messages.slice(0, Math.max(asked, 0)),
    others: messages.slice(at + 1).some((message) => message.role === "assistant"),
  };
}

// Draws a message below those that are in `list` already.
export function draw(list, message) {
  if (message.role === "assistant") {
    add(list, "div", "turn answer text", message.text);
    if (message.tool_calls?.length) {
      const calls = document.createElement("ol");
      calls.className = "calls";
      calls.append(...message.tool_calls.map(drawn));
      list.append(calls);
    }
    const told = [endOf(message), by(fellBackTo(message)), spent(message.usage)];
    add(list, "p", "hint", told.filter(Boolean).join(" · "));
  } else {
    add(list, "p", message.role === "user" ? "turn question" : "hint text", wordsOf(message));
  }
}

// Says which model answers, where it is not the one that was asked.
export function by(model) {
  return model ? `answered by ${model}` : "";
}

// What a message used and cost; the cost is exact, so it is shown to its last digit.
export function spent(usage) {
  if (!usage) {
    return "";
  }
  const { input_tokens: read, output_tokens: written, cost_usd: cost, estimated } = usage;
  const money = cost === null ? "price unknown" : `$${cost}`;
  return `${read} + ${written} tokens · ${money}${estimated ? " · estimated" : ""}`;
}

function add(list, tag, kind, text) {
  if (text) {
    const element = document.createElement(tag);
    element.className = kind;
    element.textContent = text;
    list.append(element);
  }
}

function fellBackTo({ model, attempts }) {
  const last = attempts?.at(-1)?.model;
  return last === model ? "" : last;
}

function endOf({ status, error }) {
  if (status === "failed") {
    return `failed: ${error?.message ?? "it does not say why"}`;
  }
  return status === "done" ? "" : status;
}

function wordsOf({ content }) {
  if (typeof content === "string") {
    return content;
  }
  return content.map((part) => part.text ?? `[${part.file?.filename ?? "image"}]`).join("\n");
}
