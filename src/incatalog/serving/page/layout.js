// How an answer is laid out: its lists become cards, its prose stays prose.
//
// Nothing here knows the page: texts and items go in, blocks come out.

// What may stand before an item of a list: a number, a dash, or nothing.
const SCAFFOLD = /^\s*(?:(?:\d{1,3}|[a-z])[.):]|[-–—*•])?\s*[*_"“]*$/i;
// What stands between titles of one line, and between a title and what is said of it.
const BETWEEN = /^(?:[\s*_"”.,;:&()\[\]–—-]|and|or)*$/;
const JOINT = /^[\s*_"”.,;:)\]–—-]+/;

// Splits the parts of an answer, `{text}` or `{item}`, into lines of parts.
function linesOf(parts) {
  const lines = [[]];
  for (const part of parts) {
    if (part.item) {
      lines.at(-1).push(part);
      continue;
    }
    part.text.split("\n").forEach((text, place) => {
      if (place) lines.push([]);
      if (text) lines.at(-1).push({ ...part, text });
    });
  }
  return lines;
}

const words = (line) => line.map((part) => part.text ?? part.item.title).join("");

// The blocks of an answer: `{kind: "text", lines}` or `{kind: "cards", cards: [{item, said}]}`.
// A list's items and what is said of each become cards where the list stands; items within prose
// get cards behind the answer. Each item has one card. While it grows, the beginning of a line that
// may become one of a list is held back.
export function blocksOf(parts, { growing = false } = {}) {
  const lines = linesOf(parts);
  if (growing && SCAFFOLD.test(words(lines.at(-1)))) lines.pop();
  const blocks = [];
  const shown = new Set();
  const inProse = [];
  let listed = null;
  const open = (kind, rest) => {
    if (blocks.at(-1)?.kind !== kind) blocks.push({ kind, ...rest });
    return blocks.at(-1);
  };
  for (const line of lines) {
    const first = line.findIndex((part) => part.item);
    if (first >= 0 && SCAFFOLD.test(words(line.slice(0, first)))) {
      const rest = line.slice(first + 1);
      const between = rest.map((part) => part.text ?? "").join("");
      const said = BETWEEN.test(between) ? "" : words(rest).replace(JOINT, "").trim();
      for (const part of line.filter((one) => one.item)) {
        listed = { item: part.item, said: part === line[first] ? said : "" };
        if (!shown.has(part.item.id)) open("cards", { cards: [] }).cards.push(listed);
        shown.add(part.item.id);
      }
    } else if (!words(line).trim()) {
      if (blocks.at(-1)?.kind === "text") blocks.at(-1).lines.push([]);
    } else if (listed && first < 0 && /^\s{2,}\S/.test(words(line))) {
      // Indented below an item: it belongs to it.
      listed.said = `${listed.said} ${words(line).trim()}`.trim();
    } else {
      listed = null;
      open("text", { lines: [] }).lines.push(line);
      inProse.push(...line.filter((part) => part.item).map((part) => part.item));
    }
  }
  for (const block of blocks) {
    while (block.kind === "text" && !block.lines.at(-1).length) block.lines.pop();
  }
  for (const item of inProse) {
    if (!shown.has(item.id)) open("cards", { cards: [] }).cards.push({ item, said: "" });
    shown.add(item.id);
  }
  return blocks;
}

// The parts of a text in which some titles are linked, at places counted in characters as the
// service counts them: a smile is one, though it is two in JavaScript's strings.
export function linked(parts, mentions) {
  const found = [];
  let at = 0;
  const left = [...mentions].sort((one, other) => one.start - other.start);
  for (const part of parts) {
    const letters = [...(part.text ?? part.item.title)];
    const end = at + letters.length;
    if (part.item) {
      found.push(part);
    } else {
      let from = at;
      while (left.length && left[0].end <= end) {
        const { id, start, end: past } = left.shift();
        if (start < from) continue;
        if (start > from) found.push({ text: letters.slice(from - at, start - at).join("") });
        found.push({ text: letters.slice(start - at, past - at).join(""), mention: id });
        from = past;
      }
      if (from < end) found.push({ text: letters.slice(from - at).join("") });
    }
    at = end;
  }
  return found;
}
