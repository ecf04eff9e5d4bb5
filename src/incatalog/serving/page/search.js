// The search for titles: a combobox with a list of what was found, as the ARIA practices describe it.

import * as api from "./api.js";
import { at, make, several, tell } from "./dom.js";
import { pick, profile } from "./profile.js";

const WAIT_FOR_TYPING = 180;

// `popular()` gives the items to browse before anything is typed.
export function watchSearch(popular) {
  const input = at("search");
  const list = at("found");
  const note = at("search-note");
  let found = [];
  let active = -1;
  let timer = null;
  let asked = 0;

  function explain(text) {
    note.textContent = text;
    note.hidden = !text;
  }

  function close() {
    list.hidden = true;
    active = -1;
    input.setAttribute("aria-expanded", "false");
    input.removeAttribute("aria-activedescendant");
  }

  function activate(place) {
    active = place;
    [...list.querySelectorAll("[role=option]")].forEach((option, index) => {
      const chosen = index === active;
      option.classList.toggle("active", chosen);
      option.setAttribute("aria-selected", String(chosen));
      if (!chosen) return;
      option.scrollIntoView({ block: "nearest" });
      input.setAttribute("aria-activedescendant", option.id);
    });
    if (active < 0) input.removeAttribute("aria-activedescendant");
  }

  // Whether the list is that of what was typed, and not of what stood there before.
  const isAnswered = () => input.value.trim() !== "" && list.dataset.typed === input.value.trim();

  function take(place) {
    if (!found[place]) return;
    const item = found[place];
    input.value = "";
    explain("");
    close();
    pick(item);
    tell(`${item.title} added to your picks`);
    input.focus();
  }

  function show(items, text, said) {
    list.dataset.typed = text;
    found = items.filter((item) => !profile.picks.has(item.id));
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
          make("span", { text: item.title, dir: "auto" }),
          item.categories.length && make("small", { text: item.categories.join(", "), dir: "auto" }),
        ),
      ),
    );
    list.hidden = !found.length;
    input.setAttribute("aria-expanded", String(Boolean(found.length)));
    activate(-1);
    if (found.length) tell(said());
  }

  async function look() {
    const text = input.value.trim();
    const number = ++asked;
    explain("");
    if (!text) {
      const items = popular();
      show(items, "", () => `${several(found.length, "title")} to begin with`);
      return;
    }
    let page;
    try {
      page = await api.search(profile.domain, text);
    } catch (error) {
      if (number !== asked) return;
      close();
      explain(error.message);
      return;
    }
    // What was typed in the meantime has been asked for already.
    if (number !== asked || input !== document.activeElement) return;
    show(page.items, text, () => `${found.length} of ${several(page.total, "title")}`);
    if (!page.items.length) explain(`Nothing here is called anything like “${text}”.`);
    else if (!found.length) explain("That is among your picks already.");
  }

  input.addEventListener("input", () => {
    clearTimeout(timer);
    explain("");
    timer = setTimeout(look, WAIT_FOR_TYPING);
  });
  input.addEventListener("focus", () => {
    if (!input.value.trim()) look();
  });
  input.addEventListener("click", () => {
    if (list.hidden) look();
  });
  input.addEventListener("keydown", (event) => {
    const size = found.length;
    if (event.key === "ArrowDown" && list.hidden) look();
    else if (event.key === "ArrowDown") activate((active + 1) % size);
    else if (event.key === "ArrowUp" && !list.hidden) activate((active + size - 1) % size);
    else if (event.key === "Enter" && !list.hidden && (active >= 0 || isAnswered())) take(Math.max(active, 0));
    else if (event.key === "Escape") close();
    else return;
    event.preventDefault();
  });
  input.addEventListener("blur", () => {
    clearTimeout(timer);
    asked += 1;
    close();
    explain("");
  });
}
