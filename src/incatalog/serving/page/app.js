// The page: a conversation, what the model is told beside it, and the items it names.

import * as api from "./api.js";
import { allowImages } from "./card.js";
import { watchComposer } from "./composer.js";
import { Conversation } from "./conversation.js";
import { store, watchList } from "./conversations.js";
import { at, count, make } from "./dom.js";
import { hideFilters, redrawFilters, showFacets, watchPanel } from "./filters.js";
import { askForKey } from "./key.js";
import * as memory from "./memory.js";
import { enter, profile } from "./profile.js";
import { watchSearch } from "./search.js";
import { Welcome } from "./welcome.js";

// A smaller network that was trained writes lists, and no sentence worth reading.
const TINY = 20_000_000;
const SHORT_LIST = "5";
const NO_BEGIN = { suggestions: [], popular: [], order: "catalog" };

const service = {
  model: "incatalog",
  about: {},
  abouts: new Map(),
  catalogs: [],
  settings: { title: "incatalog", images: [], max_messages: 200, max_characters: 100_000, max_history: 1000 },
};
const conversation = new Conversation(service);
const welcome = new Welcome((text, k) => conversation.submit(text, k));
let begin = NO_BEGIN;

const isTiny = () => service.about.trained && (service.about.parameters ?? Infinity) < TINY;

function size(parameters) {
  if (!parameters) return "";
  const [number, unit] = parameters < 1e9 ? [parameters / 1e6, "million"] : [parameters / 1e9, "billion"];
  return ` of ${count(number < 10 ? Math.round(number * 10) / 10 : Math.round(number))} ${unit} parameters`;
}

// What the model is, and is not.
function aboutModel(catalog) {
  const { trained, parameters } = service.about;
  if (!catalog) return `A chat model${size(parameters)}.`;
  if (!trained) {
    const chosen = catalog.guided ? "a guide picks the items" : "it does not know the items";
    return `A chat model${size(parameters)}, not trained on this catalog: ${chosen}.`;
  }
  const guided = catalog.guided ? ", with a guide" : "";
  if (isTiny()) return `A tiny model${size(parameters)}, trained on this catalog${guided}: lists, no talk.`;
  return `A model${size(parameters)}, trained on this catalog${guided}.`;
}

async function begun() {
  welcome.show(null, NO_BEGIN, "");
  at("welcome-text").textContent = "Connecting…";
  at("suggestions").replaceChildren();
  try {
    service.settings = await api.settings();
    const [models, catalogs] = await Promise.all([api.models(), api.catalogs()]);
    service.about = models.data[0];
    service.model = models.data[0].id;
    service.abouts = new Map(models.data.map((one) => [one.domain ?? "", one.about]));
    service.catalogs = catalogs;
  } catch (error) {
    if (error.status === 401) {
      await askForKey(api.key.get() ? error.message : "");
      return begun();
    }
    return welcome.problem(error.message, begun);
  }
  const { title, images } = service.settings;
  at("title").textContent = title;
  document.title = title;
  allowImages(images);
  memory.belongTo(`${service.model}/${title}`);
  const choices = service.catalogs.map((one) => make("option", { value: one.domain, text: one.domain }));
  const chat = isTiny() && choices.length ? [] : [make("option", { value: "", text: "Just chat" })];
  at("domain").replaceChildren(...choices, ...chat);
  at("domain").disabled = false;
  // Where there is nothing to choose, it only takes room.
  at("domain-field").hidden = at("domain").options.length < 2;
  const known = memory.last.get();
  const wanted = [...at("domain").options].some((one) => one.value === known) ? known : at("domain").options[0].value;
  await choose(wanted);
  at("message").focus();
  return undefined;
}

async function choose(domain) {
  conversation.leave();
  memory.last.set(domain);
  enter(domain, isTiny() ? SHORT_LIST : "");
  const catalog = conversation.catalog;
  at("domain").value = domain;
  at("settings").hidden = !domain;
  at("no-items").hidden = Boolean(domain);
  at("promise").hidden = !domain;
  at("about").textContent = aboutModel(catalog);
  at("about").title = service.abouts.get(domain) ?? aboutModel(catalog);
  begin = NO_BEGIN;
  hideFilters();
  welcome.show(catalog, begin, aboutModel(catalog));
  show(store.open());
  if (!domain) return;
  // The conversation does not wait for what stands beside it.
  const [suggested, facets] = await Promise.all([
    api.suggestions(domain).catch(() => NO_BEGIN),
    api.facets(domain).catch(() => null),
  ]);
  if (profile.domain !== domain) return;
  begin = suggested;
  if (facets) showFacets(facets);
  welcome.show(catalog, begin, aboutModel(catalog));
}

function show(talk) {
  conversation.show(talk);
  memory.open.set(profile.domain, talk.turns.length ? talk.id : "new");
  drawList();
}

const drawList = watchList({ choose: show, openNow: () => conversation.talk });

conversation.whenBusy = watchComposer(
  (text) => conversation.submit(text),
  () => conversation.answering?.abort(),
  () => service.settings.max_characters,
);
conversation.whenEmpty = (empty) => {
  at("welcome").hidden = !empty;
};

at("new").addEventListener("click", () => {
  show(store.fresh());
  at("message").focus();
});
at("domain").addEventListener("change", (event) => choose(event.target.value));

memory.watch(
  () => profile.domain,
  () => {
    enter(profile.domain, isTiny() ? SHORT_LIST : "");
    redrawFilters();
    drawList();
    const talk = store.all().find((one) => one.id === conversation.talk.id);
    if (talk && talk.at > conversation.talk.at && !conversation.answering) conversation.show(talk);
  },
);

watchPanel();
watchSearch(() => begin.popular);
begun();
