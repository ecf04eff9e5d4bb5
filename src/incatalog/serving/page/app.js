// The page: a conversation, what the model is told beside it, and the items it names.
//
// All text is put in as text, never as HTML: a title is data.

import * as api from "./api.js";

const at = (id) => document.getElementById(id);
const SUGGESTIONS = ["Something for tonight?", "What should I try next?", "Surprise me."];
const CHATTER = ["Hello! What can you do?", "Tell me a short story."];
const WAIT_FOR_TYPING = 180;
const MANY_CATEGORIES = 24;

const state = {
  model: "incatalog",
  catalogs: [],
  domain: "",
  picks: new Map(),
  excluded: new Map(),
  categories: new Set(),
  // Turns as the service is sent them; an answer carries its items.
  messages: [],
  answering: null,
};

function make(tag, { text, label, ...attributes } = {}, ...children) {
  const node = document.createElement(tag);
  if (text !== undefined) node.textContent = text;
  if (label) node.setAttribute("aria-label", label);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== false && value !== null) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter(Boolean));
  return node;
}

function tell(text) {
  at("status").textContent = text;
}

const catalog = () => state.catalogs.find((one) => one.domain === state.domain);

// --- Beginning -----------------------------------------------------------------------------------

async function begin() {
  try {
    const [models, catalogs] = await Promise.all([api.models(), api.catalogs()]);
    state.model = models.data[0].id;
    state.catalogs = catalogs;
  } catch (error) {
    if (error.status === 401) {
      await askForKey(api.key.get() ? error.message : "");
      return begin();
    }
    at("welcome-title").textContent = "Nothing to talk to";
    at("welcome-text").textContent = error.message;
    at("suggestions").replaceChildren(
      make("button", { type: "button", class: "quiet", text: "Try again", onclick: begin }),
    );
    return undefined;
  }
  const choices = state.catalogs.map((one) => make("option", { value: one.domain, text: one.domain }));
  at("domain").replaceChildren(...choices, make("option", { value: "", text: "Just chat" }));
  at("domain").disabled = false;
  choose(state.catalogs[0]?.domain ?? "");
  at("message").focus();
  return undefined;
}

function askForKey(wrong) {
  const dialog = at("key-dialog");
  at("key").value = "";
  at("key-error").textContent = wrong;
  dialog.showModal();
  return new Promise((resolve) => {
    const finish = () => {
      dialog.close();
      resolve();
    };
    at("key-form").onsubmit = (event) => {
      event.preventDefault();
      api.key.set(at("key").value.trim());
      finish();
    };
    at("key-cancel").onclick = () => {
      at("key-error").textContent = "Without a key there is nothing to see here.";
    };
    dialog.oncancel = (event) => event.preventDefault();
  });
}

function choose(domain) {
  state.domain = domain;
  at("domain").value = domain;
  state.picks.clear();
  state.excluded.clear();
  state.categories.clear();
  at("settings").hidden = !domain;
  at("no-items").hidden = Boolean(domain);
  at("promise").hidden = !domain;
  showChips();
  showCategories();
  startAnew();
}

function startAnew() {
  state.answering?.abort();
  state.messages = [];
  at("log").replaceChildren();
  at("welcome").hidden = false;
  const found = catalog();
  at("welcome-title").textContent = found ? "What are you in the mood for?" : "Hello";
  at("welcome-text").textContent = found
    ? `${count(found.items)} titles in ${found.domain}. Pick some you like, or just ask.`
    : "Plain conversation; no items are named.";
  at("suggestions").replaceChildren(
    ...(found ? SUGGESTIONS : CHATTER).map((text) =>
      make("button", { type: "button", class: "quiet", text, onclick: () => submit(text) }),
    ),
  );
}

const count = (number) => number.toLocaleString("en");

// --- What the model is told beside the conversation ----------------------------------------------

function chip(map, item) {
  const remove = () => {
    map.delete(item.id);
    showChips();
    tell(`${item.title} removed`);
  };
  return make(
    "li",
    {},
    make("span", { text: item.title }),
    make("button", { type: "button", label: `Remove ${item.title}`, text: "×", onclick: remove }),
  );
}

function showChips() {
  at("picks").replaceChildren(...[...state.picks.values()].map((item) => chip(state.picks, item)));
  at("excluded").replaceChildren(
    ...[...state.excluded.values()].map((item) => chip(state.excluded, item)),
  );
  at("excluded-section").hidden = !state.excluded.size;
  at("pick-count").textContent = state.picks.size;
  at("pick-count").hidden = !state.picks.size;
}

function pick(item) {
  state.excluded.delete(item.id);
  state.picks.set(item.id, item);
  showChips();
  tell(`${item.title} added to your picks`);
}

function showCategories() {
  const names = catalog()?.categories ?? [];
  at("categories-field").hidden = !names.length;
  at("category-search").hidden = names.length <= MANY_CATEGORIES;
  const wanted = at("category-search").value.trim().toLowerCase();
  const fitting = names.filter((name) => name.toLowerCase().includes(wanted));
  const shown = fitting.filter((name, place) => place < MANY_CATEGORIES || state.categories.has(name));
  at("categories").replaceChildren(
    ...shown.map((name) => {
      const box = make("input", { type: "checkbox", value: name });
      box.checked = state.categories.has(name);
      box.addEventListener("change", () => {
        state.categories[box.checked ? "add" : "delete"](name);
      });
      return make("label", {}, box, make("span", { text: name }));
    }),
  );
  const more = fitting.length - shown.length;
  at("categories-more").hidden = more <= 0;
  at("categories-more").textContent = `and ${count(more)} more`;
}

// A combobox with a list of what was found, as the ARIA practices describe it.
function watchSearch() {
  const input = at("search");
  const list = at("found");
  let found = [];
  let active = -1;
  let timer = null;
  let asked = 0;

  function close() {
    list.hidden = true;
    active = -1;
    input.setAttribute("aria-expanded", "false");
    input.removeAttribute("aria-activedescendant");
  }

  function activate(place) {
    active = place;
    [...list.children].forEach((option, index) => {
      const chosen = index === active;
      option.classList.toggle("active", chosen);
      option.setAttribute("aria-selected", String(chosen));
      if (chosen) option.scrollIntoView({ block: "nearest" });
    });
    if (active >= 0) input.setAttribute("aria-activedescendant", list.children[active].id);
    else input.removeAttribute("aria-activedescendant");
  }

  function take(place) {
    if (!found[place]) return;
    pick(found[place]);
    input.value = "";
    at("search-note").hidden = true;
    close();
    input.focus();
  }

  async function look() {
    const query = input.value.trim();
    const number = ++asked;
    if (!query) return close();
    let page;
    try {
      page = await api.search(state.domain, query);
    } catch (error) {
      at("search-note").textContent = error.message;
      at("search-note").hidden = false;
      return close();
    }
    // What was typed in the meantime has been asked for already.
    if (number !== asked) return undefined;
    found = page.items.filter((item) => !state.picks.has(item.id));
    list.replaceChildren(
      ...found.map((item, place) =>
        make(
          "li",
          {
            role: "option",
            id: `found-${place}`,
            "aria-selected": "false",
            onmousedown: (event) => {
              event.preventDefault();
              take(place);
            },
          },
          document.createTextNode(item.title),
          item.categories.length && make("small", { text: item.categories.join(", ") }),
        ),
      ),
    );
    at("search-note").hidden = Boolean(found.length);
    at("search-note").textContent = "No title holds these words.";
    list.hidden = !found.length;
    input.setAttribute("aria-expanded", String(Boolean(found.length)));
    activate(-1);
    if (found.length) tell(`${found.length} of ${page.total} titles`);
    return undefined;
  }

  input.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(look, WAIT_FOR_TYPING);
  });
  input.addEventListener("keydown", (event) => {
    if (event.key === "ArrowDown" && !list.hidden) activate((active + 1) % found.length);
    else if (event.key === "ArrowUp" && !list.hidden) activate((active + found.length - 1) % found.length);
    else if (event.key === "Enter" && !list.hidden) take(Math.max(active, 0));
    else if (event.key === "Escape") close();
    else return;
    event.preventDefault();
  });
  input.addEventListener("blur", close);
}

// --- The conversation ----------------------------------------------------------------------------

function asked() {
  const body = { model: state.model, messages: state.messages, temperature: 0 };
  if (!state.domain) return body;
  const length = document.querySelector('input[name="length"]:checked').value;
  return {
    ...body,
    domain: state.domain,
    history: [...state.picks.keys()],
    exclude: [...state.excluded.keys()],
    categories: [...state.categories],
    ...(length ? { k: Number(length) } : {}),
  };
}

function submit(text) {
  if (state.answering || !text.trim()) return;
  state.messages.push({ role: "user", content: text });
  at("welcome").hidden = true;
  const note = state.picks.size ? `with ${state.picks.size} of your picks` : "";
  at("log").append(
    make("div", { class: "said" }, make("p", { text }), note && make("p", { class: "hint", text: note })),
  );
  at("message").value = "";
  grow();
  answer();
}

// Why an item fits, from what is known: shared categories, or the model's own order.
function reason(item) {
  const picks = [...state.picks.values()];
  let best = null;
  for (const name of item.categories) {
    const alike = picks.filter((one) => one.categories.includes(name));
    if (alike.length && (!best || alike.length > best.alike.length)) best = { name, alike };
  }
  if (best) {
    const { name, alike } = best;
    return `${name}, like ${alike.length > 1 ? `${alike.length} titles you picked` : alike[0].title}`;
  }
  const share = item.score >= 0.01 ? `${Math.round(item.score * 100)} %` : "under 1 %";
  return `Choice ${item.rank} of ${count(catalog()?.items ?? 0)} titles, at ${share}`;
}

function card(item) {
  const like = () => pick(item);
  const refuse = () => {
    state.picks.delete(item.id);
    state.excluded.set(item.id, item);
    showChips();
    tell(`${item.title} will not be recommended again`);
  };
  return make(
    "li",
    { class: "card" },
    make("h2", { text: item.title }),
    make("ul", { class: "tags" }, ...item.categories.slice(0, 4).map((name) => make("li", { text: name }))),
    make("p", { class: "why", text: reason(item) }),
    make(
      "div",
      { class: "tools" },
      make("button", { type: "button", class: "small", text: "More like this", label: `More like ${item.title}`, onclick: like }),
      make("button", { type: "button", class: "small", text: "Not for me", label: `Not for me: ${item.title}`, onclick: refuse }),
    ),
  );
}

function toEnd() {
  const scroller = at("scroller");
  scroller.scrollTop = scroller.scrollHeight;
}

async function answer() {
  const text = make("p", { class: "text" });
  const cards = make("ul", { class: "cards", label: "Recommended" });
  const block = make("article", { class: "answer", "aria-busy": "true", label: "Answer" }, text, cards);
  at("log").append(block);
  toEnd();
  const controller = new AbortController();
  state.answering = controller;
  busy(true);
  const said = { content: "", items: [] };
  let ended = "stop";
  let problem = null;
  try {
    for await (const chunk of api.chat(asked(), controller.signal)) {
      const choice = chunk.choices[0];
      const piece = choice?.delta?.content ?? "";
      if (chunk.items) {
        for (const item of chunk.items) {
          text.append(make("mark", { text: item.title }));
          cards.append(card(item));
          said.items.push(item);
        }
      } else if (piece) {
        text.append(piece);
      }
      said.content += piece;
      ended = choice?.finish_reason ?? ended;
      toEnd();
    }
  } catch (error) {
    if (error.name === "AbortError") ended = "stopped";
    else problem = error;
  }
  block.setAttribute("aria-busy", "false");
  // A conversation that was left in the meantime is not to be written on.
  if (state.answering === controller) {
    state.answering = null;
    busy(false);
  }
  if (!block.isConnected) return;
  if (problem) {
    showProblem(block, problem);
    return;
  }
  const items = said.items.map(({ id, start, end }) => ({ id, start, end }));
  state.messages.push({ role: "assistant", content: said.content, ...(items.length ? { items } : {}) });
  const notes = { length: "The answer reached its longest length.", stopped: "Stopped." };
  if (notes[ended]) block.append(make("p", { class: "note", text: notes[ended] }));
  if (!said.content) block.append(make("p", { class: "note", text: "The model had nothing to say." }));
  block.append(tools(block, said.content));
  tell(items.length ? `Answered, with ${items.length} titles` : "Answered");
  toEnd();
}

function tools(block, text) {
  const copy = async (event) => {
    await navigator.clipboard.writeText(text);
    event.target.textContent = "Copied";
  };
  return make(
    "div",
    { class: "tools" },
    make("button", { type: "button", class: "small", text: "Copy", label: "Copy the answer", onclick: copy }),
    make("button", { type: "button", class: "small retry", text: "Try again", label: "Answer again", onclick: () => retry(block) }),
  );
}

function retry(block) {
  if (state.answering) return;
  while (at("log").lastElementChild !== block) {
    const last = at("log").lastElementChild;
    if (!last) return;
    last.remove();
    state.messages.pop();
  }
  block.remove();
  if (state.messages.at(-1)?.role === "assistant") state.messages.pop();
  answer();
}

function showProblem(block, problem) {
  if (problem.status === 401) {
    block.remove();
    askForKey(problem.message).then(answer);
    return;
  }
  const again = make("button", { type: "button", class: "quiet", text: "Try again", onclick: () => retry(block) });
  block.append(
    make("div", { class: "problem", role: "alert" }, make("p", { text: problem.message }), again),
  );
  if (problem.wait) countDown(again, problem.wait);
  toEnd();
}

function countDown(button, seconds) {
  button.disabled = seconds > 0;
  button.textContent = seconds > 0 ? `Try again in ${seconds} s` : "Try again";
  if (seconds > 0) setTimeout(() => countDown(button, seconds - 1), 1000);
}

function busy(answering) {
  at("send").hidden = answering;
  at("stop").hidden = !answering;
}

function grow() {
  const field = at("message");
  field.style.height = "auto";
  field.style.height = `${field.scrollHeight}px`;
}

// --- Wiring --------------------------------------------------------------------------------------

at("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  submit(at("message").value);
});
at("message").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    submit(at("message").value);
  }
});
at("message").addEventListener("input", grow);
at("stop").addEventListener("click", () => state.answering?.abort());
at("new").addEventListener("click", () => {
  startAnew();
  at("message").focus();
});
at("domain").addEventListener("change", (event) => choose(event.target.value));
at("category-search").addEventListener("input", showCategories);

function openPanel(open) {
  at("panel").classList.toggle("open", open);
  at("panel-toggle").setAttribute("aria-expanded", String(open));
}
at("panel-toggle").addEventListener("click", () => openPanel(!at("panel").classList.contains("open")));
at("panel-done").addEventListener("click", () => {
  openPanel(false);
  at("message").focus();
});

watchSearch();
begin();
