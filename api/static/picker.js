// The pickers of model and tools: what can be used, and what was used last.

import { models } from "./server.js";

const MODEL = "rejoin:model";
const TOOLS = "rejoin:tools";

// Fills the fields, and the list of what the model's offers.
export async function fillPicker(model, list, tools) {
  model.value = kept("sessionStorage", MODEL) || "demo/echo";
  tools.value = kept("localStorage", TOOLS);
  try {
    const options = (await models()).map((one) => new Option(one.id, one.id));
    list.replaceChildren(...options);
  } catch {
    // The picker takes any name without them.
  }
}

// The names that the field of tools holds.
export function chosenTools(field) {
  return field.value.split(",").map((name) => name.trim()).filter(Boolean);
}

// Keeps the model for a reload, and the tools for this browser.
export function remember(model, tools) {
  keep("sessionStorage", MODEL, model.value.trim());
  keep("localStorage", TOOLS, tools.value.trim());
}

// A browser that stores nothing begins anew.
function keep(where, name, value) {
  try {
    window[where].setItem(name, value);
  } catch {
    // full, or forbidden
  }
}

function kept(where, name) {
  try {
    return window[where].getItem(name) ?? "";
  } catch {
    return "";
  }
}
