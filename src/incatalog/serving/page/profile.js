// What the service is told beside the conversation: picks, what was refused, and filters.

import * as memory from "./memory.js";

export const profile = {
  domain: "",
  picks: new Map(),
  excluded: new Map(),
  categories: new Set(),
  where: {},
  length: "",
};

const watchers = [];

// Calls `changed` after each change, whoever made it.
export function whenChanged(changed) {
  watchers.push(changed);
}

const announce = () => watchers.forEach((changed) => changed());

const byId = (items) => new Map(items.map((item) => [item.id, item]));

export function enter(domain, usualLength = "") {
  const known = memory.read(domain);
  profile.domain = domain;
  profile.picks = byId(known.picks);
  profile.excluded = byId(known.excluded);
  profile.categories = new Set(known.categories);
  profile.where = known.where;
  profile.length = known.length ?? usualLength;
  announce();
}

const slim = ({ id, title, categories }) => ({ id, title, categories: categories ?? [] });

function save() {
  memory.change(profile.domain, (value) => {
    value.picks = [...profile.picks.values()].map(slim);
    value.excluded = [...profile.excluded.values()].map(slim);
    value.categories = [...profile.categories];
    value.where = profile.where;
    value.length = profile.length;
  });
  announce();
}

export function pick(item) {
  profile.excluded.delete(item.id);
  profile.picks.set(item.id, item);
  save();
}

export function exclude(item) {
  profile.picks.delete(item.id);
  profile.excluded.set(item.id, item);
  save();
}

// Neither picked nor refused any longer.
export function forget(id) {
  profile.picks.delete(id);
  profile.excluded.delete(id);
  save();
}

export function chooseLength(length) {
  profile.length = length;
  save();
}

export function toggleCategory(name, on) {
  profile.categories[on ? "add" : "delete"](name);
  save();
}

// Sets the condition on a field; null takes it off.
export function demand(field, condition) {
  const { [field]: _, ...rest } = profile.where;
  profile.where = condition === null ? rest : { ...rest, [field]: condition };
  save();
}

export function clearFilters() {
  profile.categories.clear();
  profile.where = {};
  save();
}

// Filters that the catalog no longer knows would only be refused.
export function keepFilters(categories, fields) {
  const known = Object.entries(profile.where).filter(([field]) => fields.has(field));
  const named = [...profile.categories].filter((name) => categories.has(name));
  if (known.length === Object.keys(profile.where).length && named.length === profile.categories.size) return;
  profile.where = Object.fromEntries(known);
  profile.categories = new Set(named);
  save();
}

export const filterCount = () => profile.categories.size + Object.keys(profile.where).length;

// The part of a request that is the same for answers and lists. Fields that say nothing are left
// out.
export function question() {
  const { domain, picks, excluded, categories, where } = profile;
  return {
    domain,
    ...(picks.size ? { history: [...picks.keys()] } : {}),
    ...(excluded.size ? { exclude: [...excluded.keys()] } : {}),
    ...(categories.size ? { categories: [...categories] } : {}),
    ...(Object.keys(where).length ? { where } : {}),
  };
}
