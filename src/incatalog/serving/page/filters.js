// The panel beside the conversation: picks, what was refused, the length of answers, and filters.

import { at, button, count, make, tell } from "./dom.js";
import * as profiles from "./profile.js";

const { profile } = profiles;
const FEW = 10;
const MORE = 40;
const OPEN = 2;

let facets = { categories: [], fields: [] };
// How many values of each field are shown, and what they are narrowed by.
const shown = new Map();
const narrowed = new Map();

// --- Picks ---------------------------------------------------------------------------------------

function chip(item) {
  const remove = () => {
    const list = document.activeElement?.closest("ul")?.id;
    profiles.forget(item.id);
    tell(`${item.title} removed`);
    (at(list)?.querySelector("button") ?? at("search")).focus();
  };
  return make(
    "li",
    {},
    make("span", { text: item.title, dir: "auto" }),
    button("×", remove, { kind: "", label: `Remove ${item.title}` }),
  );
}

function drawPicks() {
  at("picks").replaceChildren(...[...profile.picks.values()].map(chip));
  at("excluded").replaceChildren(...[...profile.excluded.values()].map(chip));
  at("excluded-section").hidden = !profile.excluded.size;
  const chosen = profile.picks.size + profiles.filterCount();
  at("pick-count").textContent = chosen;
  at("pick-count").hidden = !chosen;
}

function drawLength() {
  for (const choice of document.querySelectorAll('input[name="length"]')) {
    choice.checked = choice.value === profile.length;
  }
}

// --- Filters -------------------------------------------------------------------------------------

// Pills of values, those of the most items first; chosen ones are always there.
function pills(name, values, chosen, toggle) {
  const box = make("div", { class: "toggles" });
  const more = button("", () => {
    shown.set(name, (shown.get(name) ?? FEW) + MORE);
    draw();
  }, { kind: "small more" });
  const field = make("input", {
    type: "search",
    class: "narrow",
    placeholder: "Narrow…",
    autocomplete: "off",
    label: `Narrow the values of ${name}`,
    oninput: (event) => {
      narrowed.set(name, event.target.value);
      draw();
    },
  });
  field.value = narrowed.get(name) ?? "";

  function draw() {
    const wanted = (narrowed.get(name) ?? "").trim().toLowerCase();
    const most = shown.get(name) ?? FEW;
    const fitting = values.filter((one) => one.shown.toLowerCase().includes(wanted));
    const left = fitting.filter((one, place) => place < most || chosen.has(one.value));
    box.replaceChildren(
      ...left.map((one) => {
        const input = make("input", { type: "checkbox", value: one.value, onchange: () => toggle(one.value, input.checked) });
        input.checked = chosen.has(one.value);
        const size = make("small", { text: count(one.items) });
        return make("label", {}, input, make("span", {}, make("bdi", { text: one.shown }), size));
      }),
    );
    const rest = fitting.length - left.length;
    more.hidden = rest <= 0;
    more.textContent = rest > MORE ? `Show ${MORE} of ${count(rest)} more` : `Show ${count(rest)} more`;
  }

  draw();
  return make("div", {}, values.length > MORE && field, box, more);
}

function range(facet) {
  const now = profile.where[facet.field] ?? {};
  const read = () => {
    const condition = {};
    for (const [op, input] of [["gte", from], ["lte", to]]) {
      if (input.value !== "" && input.validity.valid) condition[op] = Number(input.value);
    }
    profiles.demand(facet.field, Object.keys(condition).length ? condition : null);
  };
  const limit = (op, label, usual) => {
    const input = make("input", {
      type: "number",
      step: facet.whole ? 1 : "any",
      inputmode: facet.whole ? "numeric" : "decimal",
      placeholder: facet.whole ? usual : usual.toFixed(2),
      label: `${facet.label} ${label}`,
      onchange: () => read(),
    });
    input.value = now[op] ?? "";
    return input;
  };
  const from = limit("gte", "from", facet.least);
  const to = limit("lte", "to", facet.most);
  const sign = facet.currency && make("span", { class: "hint", text: facet.currency });
  return make("div", { class: "range" }, sign, from, make("span", { class: "hint", text: "to" }), to);
}

function choice(facet) {
  const chosen = new Set(profile.where[facet.field] ?? []);
  return pills(facet.label, facet.choices, chosen, (value, on) => {
    chosen[on ? "add" : "delete"](value);
    profiles.demand(facet.field, chosen.size ? [...chosen] : null);
  });
}

function switcher(facet) {
  const input = make("input", {
    type: "checkbox",
    value: facet.field,
    onchange: () => profiles.demand(facet.field, input.checked ? true : null),
  });
  input.checked = profile.where[facet.field] === true;
  return make("div", { class: "toggles" }, make("label", {}, input, make("span", { text: "Only these" })));
}

const KINDS = { number: range, choice, switch: switcher };

function section(name, content, id, open) {
  return make("details", { class: "facet", id, open }, make("summary", { text: name, dir: "auto" }), content);
}

function drawFilters() {
  const { categories, fields } = facets;
  at("filters-section").hidden = !categories.length && !fields.length;
  const parts = [];
  if (categories.length) {
    parts.push(section("Categories", pills("Categories", categories, profile.categories, profiles.toggleCategory), "categories", true));
  }
  for (const [place, facet] of fields.entries()) {
    const open = facet.field in profile.where || place < OPEN;
    parts.push(section(facet.label, KINDS[facet.kind](facet), `facet-${facet.field}`, open));
  }
  at("filters").replaceChildren(...parts);
  drawClear();
}

function drawClear() {
  at("clear-filters").hidden = !profiles.filterCount();
}

// Until it is known what a catalog can be filtered by.
export function hideFilters() {
  at("filters-section").hidden = true;
}

// Shows what the catalog can be filtered by.
export function showFacets(found) {
  facets = found;
  shown.clear();
  narrowed.clear();
  profiles.keepFilters(new Set(found.categories.map((one) => one.value)), new Set(found.fields.map((one) => one.field)));
  drawFilters();
}

export function watchPanel() {
  profiles.whenChanged(() => {
    drawPicks();
    drawLength();
    drawClear();
  });
  for (const input of document.querySelectorAll('input[name="length"]')) {
    input.addEventListener("change", () => profiles.chooseLength(input.value));
  }
  at("clear-filters").addEventListener("click", () => {
    profiles.clearFilters();
    drawFilters();
    tell("All filters taken off");
    at("filters").querySelector("summary")?.focus();
  });

  function open(opening) {
    at("panel").classList.toggle("open", opening);
    at("panel-toggle").setAttribute("aria-expanded", String(opening));
  }
  at("panel-toggle").addEventListener("click", () => open(!at("panel").classList.contains("open")));
  at("panel-done").addEventListener("click", () => {
    open(false);
    at("message").focus();
  });
}

// Draws the filters as another tab left them.
export const redrawFilters = drawFilters;
