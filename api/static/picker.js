// The model picker: the models that can be used, and the one that was used last.

import { models } from "./server.js";

const NAME = "rejoin:model";

// Fills the field, and the list of what it offers.
export async function fillPicker(field, list) {
  field.value = last() || "demo/echo";
  try {
    const options = (await models()).map((model) => new Option(model.id, model.id));
    list.replaceChildren(...options);
  } catch {
    // The picker takes any name without them.
  }
}

// Keeps a model for a reload; a browser that stores nothing begins anew.
export function rememberModel(model) {
  try {
    sessionStorage.setItem(NAME, model);
  } catch {
    // full, or forbidden
  }
}

function last() {
  try {
    return sessionStorage.getItem(NAME) ?? "";
  } catch {
    return "";
  }
}
