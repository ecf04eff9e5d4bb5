// The conversations of a catalog, as this browser remembers them, and the list to choose from.

import { at, button, make, tell } from "./dom.js";
import * as memory from "./memory.js";
import { profile } from "./profile.js";

const LONGEST_TITLE = 60;

export const store = {
  fresh: () => ({
    id: crypto.getRandomValues(new Uint32Array(2)).join("-"),
    domain: profile.domain,
    at: Date.now(),
    title: "",
    turns: [],
    off: [],
    slid: false,
  }),

  all: () => memory.read(profile.domain).conversations,

  // The one that was open in this tab, or else the newest.
  open() {
    const known = store.all();
    const id = memory.open.get(profile.domain);
    if (id === "new") return store.fresh();
    return known.find((one) => one.id === id) ?? known[0] ?? store.fresh();
  },

  // Is told of each change.
  changed: () => {},

  save(talk) {
    talk.at = Date.now();
    talk.title ||= (talk.turns[0]?.content ?? "").slice(0, LONGEST_TITLE);
    memory.change(talk.domain, (value) => {
      value.conversations = [talk, ...value.conversations.filter((one) => one.id !== talk.id)];
    });
    memory.open.set(talk.domain, talk.id);
    store.changed();
  },

  remove(id) {
    memory.change(profile.domain, (value) => {
      value.conversations = value.conversations.filter((one) => one.id !== id);
    });
    store.changed();
  },
};

const STEPS = [
  [60, "second"],
  [3600, "minute", 60],
  [86_400, "hour", 3600],
  [Infinity, "day", 86_400],
];

function ago(moment) {
  const seconds = Math.max(0, (Date.now() - moment) / 1000);
  if (seconds < STEPS[0][0]) return "just now";
  const [, unit, size] = STEPS.find(([most]) => seconds < most);
  return new Intl.RelativeTimeFormat("en").format(-Math.floor(seconds / size), unit);
}

// The menu of conversations. `choose(talk)` opens one; `openNow()` is the one that is open.
export function watchList({ choose, openNow }) {
  const menu = at("talks");
  const opener = at("talks-toggle");

  function close() {
    menu.hidden = true;
    opener.setAttribute("aria-expanded", "false");
  }

  function draw() {
    const known = store.all();
    at("talk-count").textContent = known.length;
    at("talk-count").hidden = known.length < 2;
    opener.hidden = !known.length;
    at("talk-list").replaceChildren(
      ...known.map((talk) => {
        const title = talk.title || "Conversation";
        const current = talk.id === openNow().id;
        const open = make(
          "button",
          { type: "button", class: "talk", "aria-current": current ? "true" : null, onclick: () => (close(), choose(talk), draw()) },
          make("span", { text: title, dir: "auto" }),
          make("small", { text: ago(talk.at) }),
        );
        const forget = () => {
          store.remove(talk.id);
          tell(`${title} deleted`);
          if (talk.id === openNow().id) choose(store.fresh());
          draw();
          if (!store.all().length) {
            close();
            at("message").focus();
          } else at("talk-list").querySelector("button")?.focus();
        };
        return make("li", {}, open, button("×", forget, { kind: "small", label: `Delete: ${title}` }));
      }),
    );
  }

  opener.addEventListener("click", () => {
    const opening = menu.hidden;
    draw();
    menu.hidden = !opening;
    opener.setAttribute("aria-expanded", String(opening));
    if (opening) at("talk-list").querySelector("button")?.focus();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || menu.hidden) return;
    close();
    opener.focus();
  });
  document.addEventListener("click", (event) => {
    // A button that was redrawn is no longer in the menu, though it was when it was clicked.
    if (!menu.hidden && event.target.isConnected && !event.target.closest("#talks, #talks-toggle")) close();
  });
  at("forget-all").addEventListener("click", () => {
    store.all().forEach((talk) => store.remove(talk.id));
    close();
    choose(store.fresh());
    draw();
    tell("All conversations deleted");
  });
  store.changed = draw;
  return draw;
}
