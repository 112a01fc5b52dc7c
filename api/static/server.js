// The page's requests: each bears a lost reply, and says in one sentence what went wrong.

const TRIES = 6;
const FIRST_WAIT = 300; // milliseconds, doubling
const LONGEST_REPLY = 30_000; // milliseconds; Rejoin itself says 503 within 5 s

let unsent = null; // {text, key} of a message that nobody knows to have arrived

export class Refused extends Error {
  constructor(reason, status = 0) {
    super(reason);
    this.status = status;
  }
}

export const addressOf = (id) => new URL(`api/messages/${id}`, document.baseURI).href;

// Sends a message, into a conversation or (null) a new one, and returns what the server says of it.
// `tools`: names of those that it may call. The key makes a repeat after a lost reply the same
// message, also where it is the reader who sends it again.
export async function send(model, input, tools, conversationId) {
  const body = {
    model,
    input: input.toWellFormed?.() ?? input,
    tools: tools.length ? tools : undefined,
    conversation_id: conversationId ?? undefined,
  };
  const text = JSON.stringify(body);
  if (unsent?.text !== text) {
    unsent = { text, key: key() };
  }
  const request = posted(body, { "Idempotency-Key": unsent.key });
  try {
    const accepted = await ask(new URL("api/messages", document.baseURI), request, { read: json });
    unsent = null;
    return accepted;
  } catch (error) {
    if (error.status) {
      unsent = null; // the server has said no
    }
    throw error;
  }
}

// A conversation with its messages; Refused with status 404 where there is none.
export async function conversation(id) {
  const address = new URL(`api/conversations/${id}`, document.baseURI);
  return ask(address, { cache: "no-store" }, { read: json });
}

// Asks for a cancel, at once or after the present step. One that has ended already needs none.
export async function cancel(id, afterStep) {
  await ask(`${addressOf(id)}/cancel`, posted(afterStep ? { mode: "after_step" } : {}), {
    accepted: [409],
  });
}

// Answers a call that waits: `{approve}`, `{result}` or `{error}`; the same answer again is one.
// Refused with status 409 where another answer stands, or it waits no more.
export async function answerTool(id, callId, body) {
  await ask(`${addressOf(id)}/tools/${encodeURIComponent(callId)}`, posted(body));
}

// The models whose provider is configured.
export async function models() {
  const found = await ask(new URL("api/models", document.baseURI), {}, { read: json });
  return found.models.filter((model) => model.available);
}

function posted(body, headers = {}) {
  return {
    method: "POST",
    headers: { "Content-Type": "application/json", ...headers },
    body: JSON.stringify(body),
  };
}

const json = (response) => response.json();

// Asks until there is an answer, and returns what `read` makes of it: one that breaks off in
// mid-body is none. `accepted`: statuses that are as good as a success.
async function ask(address, how, { accepted = [], read = (response) => response.text() } = {}) {
  let reason = "";
  for (let failures = 0; failures < TRIES; failures += 1) {
    if (failures > 0) {
      await new Promise((resume) => setTimeout(resume, FIRST_WAIT * 2 ** (failures - 1)));
    }
    try {
      const signal = AbortSignal.timeout(LONGEST_REPLY); // one that stalls is none either
      const response = await fetch(address, { ...how, signal });
      if (response.ok || accepted.includes(response.status)) {
        return await read(response);
      }
      reason = await said(response);
      if (![429, 502, 503, 504].includes(response.status)) {
        throw new Refused(reason, response.status);
      }
    } catch (error) {
      if (error instanceof Refused) {
        throw error;
      }
      const strange = error instanceof SyntaxError;
      reason = strange ? "what answers is no Rejoin server" : "the server does not answer";
    }
  }
  throw new Refused(reason);
}

async function said(response) {
  try {
    return (await response.json()).detail ?? response.statusText;
  } catch {
    return `${response.status} ${response.statusText}`;
  }
}

// crypto.randomUUID exists on https and localhost alone.
function key() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
