// What the page remembers in this browser: by service and catalog, so that two shops on one address
// do not mix. Another version of the page that writes another form counts `VERSION` up.

const VERSION = 1;
const MOST_CONVERSATIONS = 30;

let service = "";
// Where the browser keeps nothing, this tab does.
const here = new Map();

export function belongTo(name) {
  service = name;
}

const nameOf = (domain) => `incatalog/${VERSION}/${service}/${domain || "-chat"}`;

function parsed(text) {
  try {
    return JSON.parse(text) ?? {};
  } catch {
    return {};
  }
}

function stored(name) {
  try {
    return localStorage.getItem(name) ?? here.get(name);
  } catch {
    return here.get(name);
  }
}

const listOf = (value) => (Array.isArray(value) ? value : []);
const items = (value) => listOf(value).filter((one) => typeof one?.id === "string" && typeof one.title === "string");

export function read(domain) {
  const found = parsed(stored(nameOf(domain)));
  return {
    picks: items(found.picks),
    excluded: items(found.excluded),
    categories: listOf(found.categories),
    where: found.where && typeof found.where === "object" ? found.where : {},
    length: typeof found.length === "string" ? found.length : null,
    conversations: listOf(found.conversations).filter((one) => one?.id && Array.isArray(one.turns)),
  };
}

function write(domain, value) {
  const name = nameOf(domain);
  value.conversations.sort((one, other) => other.at - one.at);
  value.conversations.length = Math.min(value.conversations.length, MOST_CONVERSATIONS);
  while (true) {
    const text = JSON.stringify(value);
    try {
      localStorage.setItem(name, text);
      here.delete(name);
      return;
    } catch {
      here.set(name, text);
      // No room: the oldest conversation makes some, as long as there is an older one than this.
      if (value.conversations.length < 2) return;
      value.conversations.pop();
    }
  }
}

// Changes what is remembered of a catalog; another tab may have changed it since it was read.
export function change(domain, how) {
  const value = read(domain);
  how(value);
  write(domain, value);
}

// Which conversation is open in this tab.
export const open = {
  get(domain) {
    try {
      return sessionStorage.getItem(nameOf(domain));
    } catch {
      return null;
    }
  },
  set(domain, id) {
    try {
      sessionStorage.setItem(nameOf(domain), id);
    } catch {
      // A tab that may keep nothing begins anew when it is loaded again.
    }
  },
};

export const last = {
  get: () => stored(`incatalog/${VERSION}/${service}`) ?? null,
  set(domain) {
    try {
      localStorage.setItem(`incatalog/${VERSION}/${service}`, domain);
    } catch {
      // The first catalog is shown the next time.
    }
  },
};

// Calls `changed` when another tab changes what is remembered of a catalog.
export function watch(domainNow, changed) {
  addEventListener("storage", (event) => {
    if (event.key === null || event.key === nameOf(domainNow())) changed();
  });
}
