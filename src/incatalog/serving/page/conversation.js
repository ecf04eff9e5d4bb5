// The conversation that is open: what was said, the answer that grows, and asking again.

import * as api from "./api.js";
import { AnswerView, slidNote, waitingFor } from "./answer.js";
import { store } from "./conversations.js";
import { at, button, make, several, tell } from "./dom.js";
import { askForKey } from "./key.js";
import { forget, profile, question } from "./profile.js";
import { begun, grow, joined, said, sent, shownIds } from "./turns.js";

const NEAR_END = 160;
const LEAST_KEPT = 2;

export class Conversation {
  // `service` is what the page knows of the service: the model's name, its catalogs, its limits.
  constructor(service) {
    this.service = service;
    this.answering = null;
    this.whenBusy = () => {};
    this.whenEmpty = () => {};
    this.talk = store.fresh();
    this.views = [];
  }

  get catalog() {
    return this.service.catalogs.find((one) => one.domain === profile.domain);
  }

  // Shows a conversation from the beginning.
  show(talk) {
    this.leave();
    this.talk = talk;
    at("log").replaceChildren();
    this.views = [];
    talk.turns.forEach((turn) => this.append(turn));
    this.views.forEach((view) => this.finish(view));
    this.whenEmpty(!talk.turns.length);
    if (talk.turns.at(-1)?.role === "user") this.interrupted();
    if (talk.turns.length) this.toEnd();
    else at("scroller").scrollTop = 0;
  }

  leave() {
    this.answering?.abort();
    this.answering = null;
    this.whenBusy(false);
  }

  append(turn) {
    if (turn.role === "user") {
      at("log").append(this.saidNode(turn));
      return null;
    }
    const view = new AnswerView(turn, this.actsOf(turn));
    this.views.push(view);
    at("log").append(view.node);
    return view;
  }

  saidNode(turn) {
    const note = turn.picks ? `with ${several(turn.picks, "pick")}` : "";
    return make(
      "div",
      { class: "said" },
      make("p", { text: turn.content, dir: "auto" }),
      note && make("p", { class: "hint", text: note }),
    );
  }

  // The page was left before the answer was there.
  interrupted() {
    const again = button("Ask again", () => {
      node.remove();
      this.ask();
    }, { kind: "quiet" });
    const node = make("div", { class: "problem" }, make("p", { text: "The answer to this was not finished." }), again);
    at("log").append(node);
  }

  // `k` items, where a suggestion asks for a list; otherwise what the panel says counts.
  submit(text, k = null) {
    if (this.answering || !text.trim()) return false;
    at("log").querySelector(":scope > .problem")?.remove();
    const turn = said(text, k, profile.domain ? profile.picks.size : 0);
    this.talk.turns.push(turn);
    store.save(this.talk);
    this.whenEmpty(false);
    this.append(turn);
    this.ask();
    return true;
  }

  body(most) {
    const { max_messages: messages, max_characters: characters } = this.service.settings;
    const limits = { messages: Math.min(messages, most), characters };
    const window = sent(this.talk.turns, limits);
    const body = { model: this.service.model, messages: window.messages, temperature: 0 };
    if (profile.domain) {
      const length = profile.length || this.talk.turns.at(-1).k;
      Object.assign(body, question(), length ? { k: Number(length) } : {});
      if (this.talk.off.length) body.filters_off = this.talk.off.map((one) => one.id);
    }
    return { body, left: window.left };
  }

  async ask() {
    const turn = begun();
    turn.off = this.talk.off.map((one) => ({ ...one }));
    const controller = new AbortController();
    this.answering = controller;
    this.whenBusy(true);
    const talk = this.talk;
    // What can be done with the last answer only cannot be done with those before.
    this.views.forEach((view) => this.finish(view));
    const view = this.append(turn);
    view.wait(waitingFor(this.catalog));
    this.toEnd();
    let problem = null;
    try {
      await this.stream(turn, view, controller.signal);
    } catch (error) {
      if (error.name === "AbortError") turn.ended = "stopped";
      else problem = error;
    }
    view.ended();
    // A conversation that was left in the meantime is not to be written on.
    if (this.answering === controller) this.leave();
    if (!view.node.isConnected) return;
    if (problem) {
      this.failed(view, problem);
      return;
    }
    talk.turns.push(turn);
    store.save(talk);
    this.finish(view);
    const titles = shownIds(turn).length;
    tell(titles ? `Answered, with ${several(titles, "title")}` : "Answered");
    if (this.nearEnd()) this.toEnd();
  }

  // Asks, and asks again with less where the service says that it is too much.
  async stream(turn, view, signal) {
    let most = Infinity;
    let checked = false;
    while (true) {
      const { body, left } = this.body(most);
      try {
        for await (const chunk of api.chat(body, signal)) this.take(turn, view, chunk, left);
        return;
      } catch (error) {
        if (turn.parts.length || !(error instanceof api.Problem)) throw error;
        if (error.code === "context_length_exceeded" && body.messages.length > LEAST_KEPT) {
          most = Math.max(1, Math.floor(body.messages.length / 2));
        } else if (error.status === 400 && !checked && (await this.dropGone(turn))) {
          checked = true;
        } else throw error;
      }
    }
  }

  take(turn, view, chunk, left) {
    const stick = this.nearEnd();
    for (const id of chunk.unknown ?? []) this.gone(turn, id);
    grow(turn, chunk);
    const missing = left + (chunk.left_out ?? 0);
    if (missing && chunk.choices?.[0]?.finish_reason && !this.talk.slid) {
      this.talk.slid = true;
      turn.notes.push(slidNote(missing));
    }
    view.draw({ growing: true });
    if (stick) this.toEnd();
  }

  gone(turn, id) {
    const item = profile.picks.get(id) ?? profile.excluded.get(id);
    if (!item) return;
    forget(id);
    turn.notes.push(`${item.title} is no longer in the catalog; it was taken out of your picks.`);
  }

  // Whether some of what was picked or refused has left the catalog; it is then forgotten.
  async dropGone(turn) {
    if (!profile.domain) return false;
    const ids = [...profile.picks.keys(), ...profile.excluded.keys()];
    const missing = await Promise.all(
      ids.map(async (id) => {
        try {
          await api.item(profile.domain, id);
          return null;
        } catch (error) {
          return error.status === 404 ? id : null;
        }
      }),
    );
    const gone = missing.filter((id) => id !== null);
    gone.forEach((id) => this.gone(turn, id));
    return gone.length > 0;
  }

  failed(view, problem) {
    if (problem.status === 401) {
      this.remove(view);
      askForKey(problem.message).then(() => this.ask());
      return;
    }
    view.draw();
    view.problem(problem, () => {
      this.remove(view);
      this.ask();
    });
    this.toEnd();
  }

  // Draws a finished answer, with what can be done with it now.
  finish(view) {
    view.draw();
    view.drawFoot();
  }

  remove(view) {
    view.node.remove();
    this.views = this.views.filter((one) => one !== view);
  }

  actsOf(turn) {
    const isLast = () => !this.answering && this.talk.turns.at(-1) === turn;
    const again = () => this.retry();
    return {
      changed: () => store.save(this.talk),
      another: () => this.another(turn),
      update: () => (isLast() ? again : null),
      retry: () => (isLast() ? again : null),
      toggleFilter: () => (isLast() ? (filter, off) => this.toggleFilter(filter, off) : null),
      show: (id) => this.showItem(turn, id),
    };
  }

  // Answers the last question again.
  retry() {
    if (this.answering || this.talk.turns.at(-1)?.role !== "assistant") return;
    const turn = this.talk.turns.pop();
    this.remove(this.views.find((view) => view.turn === turn));
    this.ask();
  }

  toggleFilter(filter, off) {
    const others = this.talk.off.filter((one) => one.id !== filter.id);
    this.talk.off = off ? [...others, filter] : others;
    tell(off ? `${filter.label} taken off` : `${filter.label} put back`);
    this.retry();
  }

  // Another item for the place of one that was refused.
  async another(turn) {
    const asked = question();
    const exclude = [...new Set([...(asked.exclude ?? []), ...shownIds(turn)])];
    const where = joined(asked.where ?? {}, turn.filters);
    try {
      const [found] = await api.recommend({ ...asked, exclude, ...(Object.keys(where).length ? { where } : {}), k: 1 });
      return found ?? null;
    } catch (error) {
      if (error.code === "no_item_left") return null;
      throw error;
    }
  }

  // The card of a title that stands in the text.
  async showItem(turn, id) {
    const view = this.views.find((one) => one.turn === turn);
    if (shownIds(turn).includes(id)) {
      view.slots.get(id)?.node.scrollIntoView({ block: "nearest" });
      return;
    }
    turn.extra.push(await api.item(profile.domain, id));
    store.save(this.talk);
    view.draw();
  }

  nearEnd() {
    const { scrollTop, scrollHeight, clientHeight } = at("scroller");
    return scrollHeight - scrollTop - clientHeight < NEAR_END;
  }

  toEnd() {
    at("scroller").scrollTop = at("scroller").scrollHeight;
  }
}
