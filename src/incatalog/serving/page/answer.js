// One answer of the conversation: its text, its cards, and what can be done with it.

import { slot } from "./card.js";
import { button, count, make, several } from "./dom.js";
import { blocksOf, linked } from "./layout.js";

const SIGN_AFTER = 250;
const LONG_WAIT = 3;
const ENDS = {
  length: "The answer reached its longest length.",
  stopped: "Stopped.",
};

export class AnswerView {
  // `turn` is what is remembered of the answer; `acts` what its controls ask for.
  constructor(turn, acts) {
    this.turn = turn;
    this.acts = acts;
    this.slots = new Map();
    this.body = make("div", { class: "body" });
    this.chips = make("div", { class: "understood", hidden: true });
    this.foot = make("div", { class: "foot" });
    this.node = make("article", { class: "answer", label: "Answer" }, this.chips, this.body, this.foot);
  }

  // A sign that something happens, until there is something to see. `what` is said of it.
  wait(what) {
    const began = Date.now();
    const seconds = make("span", { "aria-hidden": "true" });
    const told = make("span", { text: what });
    this.waiting = make("p", { class: "waiting", hidden: true }, make("span", { class: "dots" }), told, seconds);
    this.node.setAttribute("aria-busy", "true");
    this.body.before(this.waiting);
    this.timer = setInterval(() => {
      const passed = Math.floor((Date.now() - began) / 1000);
      this.waiting.hidden = false;
      seconds.textContent = passed >= LONG_WAIT ? ` ${passed} s` : "";
    }, SIGN_AFTER);
  }

  ended() {
    clearInterval(this.timer);
    this.waiting?.remove();
    this.node.setAttribute("aria-busy", "false");
  }

  // Draws what there is; blocks that stand already are only added to.
  draw({ growing = false } = {}) {
    const { parts, mentions, opinions, extra } = this.turn;
    const blocks = blocksOf(growing ? parts : linked(parts, mentions ?? []), { growing });
    if (extra?.length) blocks.push({ kind: "cards", cards: extra.map((item) => ({ item, said: "" })) });
    // What can be seen says more than words; that there is more to come it does not say.
    if (growing && blocks.length && this.waiting.previousElementSibling !== this.body) {
      clearInterval(this.timer);
      this.waiting.hidden = false;
      this.waiting.replaceChildren(make("span", { class: "dots" }));
      this.body.after(this.waiting);
    }
    blocks.forEach((block, place) => {
      const before = this.body.children[place];
      const kind = block.kind === "text" ? "P" : "UL";
      if (before?.tagName === kind) this.fill(before, block);
      else {
        const node = block.kind === "text" ? make("p", { class: "text", dir: "auto" }) : make("ul", { class: "cards", label: "Recommended" });
        this.fill(node, block);
        if (before) before.replaceWith(node);
        else this.body.append(node);
      }
    });
    while (this.body.children.length > blocks.length) this.body.lastElementChild.remove();
    this.drawFilters();
  }

  fill(node, block) {
    if (block.kind === "text") {
      node.replaceChildren(...block.lines.flatMap((line, place) => [...(place ? ["\n"] : []), ...line.map((part) => this.piece(part))]));
      return;
    }
    block.cards.forEach(({ item, said }, place) => {
      const known = this.slots.get(item.id);
      // What is said of an item comes after its title.
      if (known && known.said === said && node.children[place] === known.node) return;
      const made = { said, node: known && known.said === said ? known.node : slot(item, said, this.turn.opinions, this.acts) };
      this.slots.set(item.id, made);
      if (node.children[place]) node.children[place].replaceWith(made.node);
      else node.append(made.node);
    });
    while (node.children.length > block.cards.length) node.lastElementChild.remove();
  }

  piece(part) {
    if (part.item) return make("mark", { text: part.item.title, dir: "auto" });
    if (!part.mention) return document.createTextNode(part.text);
    return button(part.text, () => this.acts.show(part.mention), { kind: "mention", label: `Show ${part.text}` });
  }

  // What was understood of the request. Only in the last answer it can be changed.
  drawFilters() {
    const { filters = [], off = [], parts } = this.turn;
    // Talk that names nothing has nothing to filter.
    this.chips.hidden = !filters.length && !(off.length && parts.some((part) => part.item));
    if (this.chips.hidden) return;
    const toggle = this.acts.toggleFilter();
    const chip = ({ id, label }, on) => {
      const text = label || id;
      if (!toggle) return make("span", { class: on ? "filter" : "filter off", text });
      return button(on ? `${text} ×` : `+ ${text}`, () => toggle({ id, label: text }, on), {
        kind: on ? "filter" : "filter off",
        label: on ? `Take off: ${text}` : `Put back: ${text}`,
      });
    };
    this.chips.replaceChildren(
      make("span", { class: "hint", text: filters.length ? "Understood:" : "Taken off:" }),
      ...filters.map((one) => chip(one, true)),
      ...off.map((one) => chip(one, false)),
    );
  }

  // What stands below a finished answer.
  drawFoot() {
    const { parts, ended, notes = [] } = this.turn;
    const told = [...notes];
    const nothing = !parts.length;
    if (ended === "stopped" && nothing) told.push("Stopped before anything was said.");
    else if (ENDS[ended]) told.push(ENDS[ended]);
    else if (nothing) told.push("The model had nothing to say.");
    const text = parts.map((part) => part.text ?? part.item.title).join("");
    const copy = async (event) => {
      await navigator.clipboard.writeText(text);
      event.target.textContent = "Copied";
    };
    const retry = this.acts.retry();
    this.foot.replaceChildren(
      ...told.map((note) => make("p", { class: "note", text: note })),
      make(
        "div",
        { class: "tools" },
        !nothing && button("Copy", copy, { label: "Copy the answer" }),
        retry && button("Try again", retry, { kind: "small retry", label: "Answer again" }),
      ),
    );
  }

  problem(problem, again) {
    const retry = button("Try again", again, { kind: "quiet" });
    this.foot.replaceChildren(make("div", { class: "problem", role: "alert" }, make("p", { text: problem.message, dir: "auto" }), retry));
    if (problem.wait) countDown(retry, problem.wait);
  }
}

function countDown(retry, seconds) {
  retry.disabled = seconds > 0;
  retry.textContent = seconds > 0 ? `Try again in ${seconds} s` : "Try again";
  if (seconds > 0) setTimeout(() => countDown(retry, seconds - 1), 1000);
}

export const waitingFor = (catalog) =>
  catalog ? `Choosing from ${count(catalog.items)} titles…` : "The model is reading…";

export const slidNote = (number) =>
  `This conversation has grown long: its oldest ${several(number, "message")} can no longer be taken into account.`;
