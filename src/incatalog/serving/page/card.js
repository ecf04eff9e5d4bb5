// An item as a card: what is known of it, why it is here, and what people say to it.

import * as api from "./api.js";
import { button, focusOn, make, tell } from "./dom.js";
import * as profiles from "./profile.js";

const MOST_TAGS = 4;
const MOST_FACTS = 4;
const LONGEST_FACT = 60;
const FIRST = ["price", "brand", "year"];
// Shown in ways of their own.
const LINKS = new Set(["url", "image"]);

const settings = { images: [] };

// Origins that the operator lets images come from, beside this one.
export function allowImages(origins) {
  settings.images = origins;
}

function address(item, name) {
  const value = item.attributes?.find((one) => one.name === name)?.value;
  if (typeof value !== "string") return null;
  try {
    return new URL(value, location.origin);
  } catch {
    return null;
  }
}

function linkOf(item) {
  const found = address(item, "url");
  return found && (found.protocol === "https:" || found.origin === location.origin) ? found.href : null;
}

function imageOf(item) {
  const found = address(item, "image");
  if (!found) return null;
  const allowed = found.origin === location.origin || settings.images.includes(found.origin);
  return allowed ? found.href : null;
}

function place(fact) {
  const found = FIRST.indexOf(fact.name.toLowerCase());
  return found < 0 ? FIRST.length : found;
}

function facts(item) {
  const told = (item.attributes ?? []).filter((one) => !LINKS.has(one.name) && one.shown && one.shown.length <= LONGEST_FACT);
  return told.sort((one, other) => place(one) - place(other)).slice(0, MOST_FACTS);
}

const isPrice = (fact) => fact.name.toLowerCase() === "price";

function factList(item) {
  const told = facts(item);
  if (!told.length) return null;
  return make(
    "dl",
    { class: "facts" },
    ...told.map((fact) =>
      make(
        "div",
        { class: isPrice(fact) ? "price" : "" },
        make("dt", { text: fact.label ?? fact.name, class: isPrice(fact) ? "hidden" : "" }),
        make("dd", { text: fact.shown, dir: "auto" }),
      ),
    ),
  );
}

// What a card shares with the picks, where the service gives no reason of its own.
function shared(item) {
  const picks = [...profiles.profile.picks.values()].filter((one) => one.id !== item.id);
  let best = null;
  for (const name of item.categories) {
    const alike = picks.filter((one) => one.categories.includes(name));
    if (alike.length && (!best || alike.length > best.alike.length)) best = { name, alike };
  }
  if (!best) return "";
  const { name, alike } = best;
  return `${name}, like ${alike.length > 1 ? `${alike.length} of your picks` : alike[0].title}`;
}

function picture(item) {
  const source = imageOf(item);
  if (!source) return null;
  return make("img", {
    src: source,
    alt: "",
    loading: "lazy",
    referrerpolicy: "no-referrer",
    onerror: (event) => event.target.remove(),
  });
}

// `opinions` is what the turn remembers: by id `{said: "more" | "less", instead: item}`.
// `acts` are what a card may ask for: `changed()`, `another(item)`, `update()` where the list may be
// asked for again.
export function slot(item, said, opinions, acts) {
  const node = make("li", { class: "slot" });
  const draw = (focus) => {
    node.replaceChildren(...drawn(item, said, opinions, acts, draw));
    if (focus) focusOn(node, ...focus);
  };
  draw();
  return node;
}

const UNDO = [".undo"];

function drawn(item, said, opinions, acts, draw) {
  const opinion = opinions[item.id];
  if (opinion?.said === "less") return refused(item, opinion, opinions, acts, draw);
  return [card(item, said, opinion, opinions, acts, draw)];
}

function card(item, said, opinion, opinions, acts, draw) {
  // What it shared when it was shown: a reason does not change with later picks.
  item.shared ??= shared(item);
  const why = item.reason || said || item.shared;
  const link = linkOf(item);
  const title = make("h2", { dir: "auto" });
  title.append(
    link
      ? make("a", { href: link, target: "_blank", rel: "noopener noreferrer", text: item.title })
      : document.createTextNode(item.title),
  );
  return make(
    "div",
    { class: opinion ? "card liked" : "card" },
    picture(item),
    title,
    make("ul", { class: "tags" }, ...item.categories.slice(0, MOST_TAGS).map((name) => make("li", { text: name, dir: "auto" }))),
    factList(item),
    why && make("p", { class: "why", text: why, dir: "auto" }),
    opinion ? agreed(item, opinions, acts, draw) : choices(item, opinions, acts, draw),
  );
}

function choices(item, opinions, acts, draw) {
  const like = () => {
    opinions[item.id] = { said: "more" };
    profiles.pick(item);
    acts.changed();
    tell(`${item.title} added to your picks`);
    draw(UNDO);
  };
  return make(
    "div",
    { class: "tools" },
    button("More like this", like, { label: `More like ${item.title}` }),
    button("Not for me", () => refuse(item, opinions, acts, draw), { label: `Not for me: ${item.title}` }),
  );
}

function undo(item, opinions, acts, draw) {
  delete opinions[item.id];
  profiles.forget(item.id);
  acts.changed();
  tell(`${item.title}: undone`);
  draw([".tools button"]);
}

const undoing = (item, ...rest) =>
  button("Undo", () => undo(item, ...rest), { kind: "small undo", label: `Undo: ${item.title}` });

function agreed(item, opinions, acts, draw) {
  const tools = make("div", { class: "tools" }, undoing(item, opinions, acts, draw));
  if (acts.update()) tools.prepend(button("Update the list", () => acts.update()(), { kind: "small strong update" }));
  return make("div", {}, make("p", { class: "verdict", text: "✓ Added to your picks" }), tools);
}

async function refuse(item, opinions, acts, draw) {
  const opinion = { said: "less", instead: null, looking: true };
  opinions[item.id] = opinion;
  profiles.exclude(item);
  acts.changed();
  tell(`${item.title} will not be recommended again`);
  draw(UNDO);
  try {
    opinion.instead = await acts.another();
    opinion.note = opinion.instead ? "" : "Nothing else fits.";
  } catch (error) {
    opinion.note = error instanceof api.Problem ? error.message : String(error);
  }
  delete opinion.looking;
  // Taken back in the meantime?
  if (opinions[item.id] !== opinion) return;
  acts.changed();
  if (opinion.instead) tell(`${opinion.instead.title} instead`);
  draw(null);
}

function refused(item, opinion, opinions, acts, draw) {
  const strip = make(
    "div",
    { class: "strip" },
    make("p", {}, make("s", { text: item.title, dir: "auto" }), document.createTextNode(" not for you")),
    undoing(item, opinions, acts, draw),
  );
  const { instead, looking, note } = opinion;
  if (instead) return [strip, ...drawn(instead, "", opinions, acts, draw)];
  return [strip, make("p", { class: "card empty", text: looking ? "Finding another…" : note })];
}
