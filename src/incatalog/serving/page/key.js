// The key that a service may ask for.

import * as api from "./api.js";
import { at } from "./dom.js";

// Asks until a key is given; `wrong` says what was wrong with the last one.
export function askForKey(wrong) {
  const dialog = at("key-dialog");
  at("key").value = "";
  at("key-error").textContent = wrong;
  dialog.showModal();
  return new Promise((resolve) => {
    at("key-form").onsubmit = (event) => {
      event.preventDefault();
      api.key.set(at("key").value.trim());
      dialog.close();
      resolve();
    };
    at("key-cancel").onclick = () => {
      at("key-error").textContent = "Without a key there is nothing to see here.";
    };
    dialog.oncancel = (event) => event.preventDefault();
  });
}
