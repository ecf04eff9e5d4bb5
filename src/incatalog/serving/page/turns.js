// The turns of a conversation, as they are remembered and as the service is sent them.

const contentOf = (turn) => turn.content ?? turn.parts.map((part) => part.text ?? part.item.title).join("");

const itemsOf = (turn) => (turn.parts ?? []).filter((part) => part.item).map((part) => part.item);

export function said(content, k, picks) {
  return { role: "user", content, k, picks };
}

export function begun() {
  return { role: "assistant", parts: [], filters: [], off: [], mentions: [], opinions: {}, extra: [], notes: [], ended: null };
}

// Takes in a chunk of an answer.
export function grow(turn, chunk) {
  const choice = chunk.choices?.[0];
  const piece = choice?.delta?.content ?? "";
  if (chunk.filters) turn.filters = chunk.filters;
  if (chunk.mentions) turn.mentions = chunk.mentions;
  if (chunk.items?.length && piece) turn.parts.push(...chunk.items.map((item) => ({ item })));
  else if (piece && turn.parts.at(-1)?.text !== undefined) turn.parts.at(-1).text += piece;
  else if (piece) turn.parts.push({ text: piece });
  for (const item of chunk.items && !piece ? chunk.items : []) learn(turn, item);
  turn.ended = choice?.finish_reason ?? turn.ended;
}

// What is known of an item only after it was named.
function learn(turn, item) {
  const known = itemsOf(turn).find((one) => one.id === item.id && (item.start ?? one.start) === one.start);
  if (known) Object.assign(known, item);
}

// All items that an answer shows, those in the place of refused ones too.
export function shownIds(turn) {
  const instead = Object.values(turn.opinions).map((one) => one.instead);
  return [...itemsOf(turn), ...instead.filter(Boolean), ...turn.extra].map((item) => item.id);
}

function message(turn) {
  if (turn.role === "user") return { role: "user", content: turn.content };
  const items = itemsOf(turn).filter((item) => Number.isInteger(item.start));
  return {
    role: "assistant",
    content: contentOf(turn),
    ...(items.length ? { items: items.map(({ id, start, end }) => ({ id, start, end })) } : {}),
  };
}

// The newest turns that the service takes, and how many were left out. A question that has no
// answer, as it was stopped or failed, is left out as well, unless it is the last.
export function sent(turns, { messages, characters }) {
  const kept = turns.filter((turn, place) => {
    if (turn.role === "assistant") return contentOf(turn) !== "";
    const answer = turns[place + 1];
    return !answer || (answer.role === "assistant" && contentOf(answer) !== "");
  });
  let from = kept.length - 1;
  let room = characters - contentOf(kept[from]).length;
  while (from > 0 && kept.length - from < messages && contentOf(kept[from - 1]).length <= room) {
    from -= 1;
    room -= contentOf(kept[from]).length;
  }
  while (kept[from].role !== "user") from += 1;
  return { messages: kept.slice(from).map(message), left: from };
}

const STRICTER = { lte: Math.min, lt: Math.min, gte: Math.max, gt: Math.max };

const conditionOf = (value) => {
  if (Array.isArray(value)) return { in: value };
  return value !== null && typeof value === "object" ? value : { eq: value };
};

// What the filters of an answer and those of the panel ask for together.
export function joined(where, filters) {
  const found = { ...where };
  for (const { field, op, value } of filters) {
    const before = field in found ? conditionOf(found[field]) : {};
    const both = op in before && STRICTER[op] ? STRICTER[op](before[op], value) : value;
    found[field] = { ...before, [op]: both };
  }
  return found;
}
