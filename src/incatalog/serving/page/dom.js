// Small things that all parts of the page use. All text is put in as text, never as HTML: a title
// is data.

export const at = (id) => document.getElementById(id);

export function make(tag, { text, label, ...attributes } = {}, ...children) {
  const node = document.createElement(tag);
  if (text !== undefined) node.textContent = text;
  if (label) node.setAttribute("aria-label", label);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter(Boolean));
  return node;
}

export function button(text, onclick, { kind = "small", ...attributes } = {}) {
  return make("button", { type: "button", class: kind, text, onclick, ...attributes });
}

// Says something to those who do not see the page.
export function tell(text) {
  at("status").textContent = text;
}

export const count = (number) => number.toLocaleString("en");

export const several = (number, one, many = `${one}s`) => `${count(number)} ${number === 1 ? one : many}`;

// Puts the focus on the first of some places that is there.
export function focusOn(node, ...selectors) {
  for (const selector of selectors) {
    const found = node.querySelector(selector);
    if (found) return found.focus();
  }
  return undefined;
}
