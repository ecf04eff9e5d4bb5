// The API's schema as a page, without anything from elsewhere.

const schema = await (await fetch("/openapi.json")).json();
const body = document.getElementById("reference");

function make(tag, text, ...children) {
  const node = document.createElement(tag);
  if (text) node.textContent = text;
  node.append(...children);
  return node;
}

const resolve = (one) => (one?.$ref ? schema.components.schemas[one.$ref.split("/").at(-1)] : one);

// The name of a type: "text", "list of whole numbers", ...
function kind(one) {
  if (!one) return "anything";
  if (one.$ref) return one.$ref.split("/").at(-1);
  if (one.anyOf) return one.anyOf.map(kind).join(" or ");
  if (one.const !== undefined) return JSON.stringify(one.const);
  if (one.enum) return one.enum.map((value) => JSON.stringify(value)).join(" or ");
  if (one.type === "array") return `list of ${kind(one.items)}`;
  return one.type ?? "anything";
}

function fields(one) {
  const found = resolve(one);
  if (!found?.properties) return null;
  const rows = Object.entries(found.properties).map(([name, value]) =>
    make(
      "tr",
      "",
      make("td", "", make("code", name)),
      make("td", kind(value)),
      make("td", [(found.required ?? []).includes(name) ? "required." : "", value.description ?? ""].join(" ").trim()),
    ),
  );
  return make("table", "", make("tbody", "", ...rows));
}

for (const [path, methods] of Object.entries(schema.paths)) {
  for (const [method, operation] of Object.entries(methods)) {
    const section = make("section", "", make("h2", "", make("code", `${method.toUpperCase()} ${path}`)));
    section.append(make("p", operation.description ?? ""));
    for (const one of operation.parameters ?? []) {
      section.append(make("p", `${one.name} (in the ${one.in}): ${kind(one.schema)}`));
    }
    const sent = fields(operation.requestBody?.content?.["application/json"]?.schema);
    if (sent) section.append(make("h3", "Request"), sent);
    const told = fields(operation.responses?.["200"]?.content?.["application/json"]?.schema);
    if (told) section.append(make("h3", "Answer"), told);
    body.append(section);
  }
}

body.append(make("h2", "Types"));
for (const [name, one] of Object.entries(schema.components.schemas)) {
  const table = fields(one);
  if (table) body.append(make("section", "", make("h3", name), make("p", one.description ?? ""), table));
}
