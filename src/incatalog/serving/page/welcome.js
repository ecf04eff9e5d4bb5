// The first screen: popular items to pick from, and questions to begin with.

import { at, button, count, make } from "./dom.js";
import * as profiles from "./profile.js";

const ENOUGH = 3;
const CHATTER = ["Hello! What can you do?", "Tell me a short story."];
const ASK = "What would you recommend?";
const LIST = "5";

function starter(item) {
  const chosen = profiles.profile.picks.has(item.id);
  const toggle = () => {
    if (profiles.profile.picks.has(item.id)) profiles.forget(item.id);
    else profiles.pick(item);
  };
  return make(
    "button",
    { type: "button", class: "starter", "aria-pressed": String(chosen), onclick: toggle, "data-id": item.id },
    make("span", { text: item.title, dir: "auto" }),
    item.categories.length && make("small", { text: item.categories.slice(0, 2).join(", "), dir: "auto" }),
  );
}

// `submit(text, k)` sends a question.
export class Welcome {
  constructor(submit) {
    this.submit = submit;
    this.begin = { suggestions: [], popular: [], order: "catalog" };
    profiles.whenChanged(() => this.drawPicks());
  }

  // Shows where one may begin in a catalog; without one, that there is only talk.
  show(catalog, begin, about) {
    this.catalog = catalog;
    this.begin = begin;
    at("welcome-title").textContent = catalog ? `Find something in ${catalog.domain}` : "Hello";
    at("welcome-text").textContent = catalog ? "" : "Plain conversation; no items are named.";
    at("welcome-about").textContent = about;
    at("starters-title").textContent =
      begin.order === "popularity" ? "Popular here: pick three you know and like" : "Pick three you know and like";
    at("starters-section").hidden = !begin.popular.length;
    at("starters").replaceChildren(...begin.popular.map(starter));
    const questions = catalog ? begin.suggestions : CHATTER;
    at("suggestions-title").hidden = !catalog || !questions.length;
    at("suggestions").replaceChildren(
      ...questions.map((text) => button(text, () => this.submit(text, catalog ? LIST : null), { kind: "quiet", dir: "auto" })),
    );
    this.drawPicks();
  }

  drawPicks() {
    const { picks } = profiles.profile;
    for (const one of at("starters").children) one.setAttribute("aria-pressed", String(picks.has(one.dataset.id)));
    if (!this.catalog) return;
    const left = ENOUGH - picks.size;
    const so = picks.size ? (left > 0 ? `${count(left)} more to go, or ask at once.` : "That is enough to begin with.") : "";
    at("starters-note").textContent = so;
    const ask = button(`Recommend from my ${picks.size === 1 ? "pick" : `${count(picks.size)} picks`}`, () => this.submit(ASK, LIST), {
      kind: "primary",
    });
    at("starters-ask").replaceChildren(...(picks.size ? [ask] : []));
    at("welcome-text").textContent = `${count(this.catalog.items)} titles. Pick some that you like, or just ask.`;
  }

  problem(message, again) {
    at("welcome-title").textContent = "Nothing to talk to";
    at("welcome-text").textContent = message;
    at("suggestions").replaceChildren(button("Try again", again, { kind: "quiet" }));
  }
}
