// The service, as the page talks to it.

const STORED_KEY = "incatalog-key";

export const key = {
  get: () => sessionStorage.getItem(STORED_KEY) ?? "",
  set: (value) => sessionStorage.setItem(STORED_KEY, value),
  forget: () => sessionStorage.removeItem(STORED_KEY),
};

// An answer that is none. `wait` is in seconds, where the service says when to come back.
export class Problem extends Error {
  constructor(message, { status = 0, wait = null, code = null } = {}) {
    super(message);
    this.status = status;
    this.wait = wait;
    this.code = code;
  }
}

async function send(path, options = {}) {
  const headers = { ...options.headers };
  if (key.get()) headers.Authorization = `Bearer ${key.get()}`;
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem("The service cannot be reached. Is it running?");
  }
  if (response.ok) return response;
  const body = await response.json().catch(() => ({}));
  const wait = Number(response.headers.get("Retry-After")) || null;
  const message = body.error?.message ?? `The service answered with status ${response.status}.`;
  throw new Problem(message, { status: response.status, wait, code: body.error?.code });
}

async function get(path) {
  return (await send(path)).json();
}

export const models = () => get("/v1/models");
export const catalogs = async () => (await get("/v1/catalogs")).catalogs;

export const settings = () => get("/page/settings.json");

const catalogPath = (domain) => `/v1/catalogs/${encodeURIComponent(domain)}`;

export const suggestions = (domain) => get(`${catalogPath(domain)}/suggestions`);
export const facets = (domain) => get(`${catalogPath(domain)}/facets`);
export const item = (domain, id) => get(`${catalogPath(domain)}/items/${encodeURIComponent(id)}`);

// Titles that are probably meant, however they are misspelled.
export function search(domain, text, limit = 8) {
  return get(`${catalogPath(domain)}/items?${new URLSearchParams({ search: text, limit })}`);
}

const posted = (body) => ({
  method: "POST",
  headers: { "Content-Type": "application/json" },
  body: JSON.stringify(body),
});

export async function recommend(body) {
  return (await (await send("/v1/recommendations", posted(body))).json()).items;
}

// The chunks of an answer as they come.
export async function* chat(body, signal) {
  const response = await send("/v1/chat/completions", { ...posted({ ...body, stream: true }), signal });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    while (true) {
      const { value, done } = await reader.read();
      if (done) throw new Problem("The answer was cut off.");
      const lines = (rest + value).split("\n");
      rest = lines.pop();
      for (const line of lines) {
        if (line === "data: [DONE]") return;
        if (!line.startsWith("data: ")) continue;
        const chunk = JSON.parse(line.slice(6));
        if (chunk.error) throw new Problem(chunk.error.message, { code: chunk.error.code });
        yield chunk;
      }
    }
  } catch (error) {
    if (error.name === "AbortError" || error instanceof Problem) throw error;
    throw new Problem("The answer was cut off.");
  }
}
